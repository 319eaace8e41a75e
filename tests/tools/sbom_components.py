"""The components of an image, found in its files: `bill(image)`. `sbom.py` calls it."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from email.parser import HeaderParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from packageurl import PackageURL

from tests.tools.image_files import ImageFiles

ROOT: Final = Path(__file__).resolve().parents[2]
DPKG: Final = "var/lib/dpkg/status"
# The Dockerfiles put the lock of an image here.
LOCK: Final = "opt/alise-requirements.lock"
ENCODER: Final = "opt/alise-encoder/encoder.onnx"
# What a license may be called that is no SPDX expression.
NAME_LENGTH: Final = 80


def bill(image: ImageFiles) -> Bom:
    """The bill of materials of an image. The same image has the same bill, but for its serial number and its time."""
    labels = image.config.get("config", {}).get("Labels") or {}
    made = Component(
        type=ComponentType.CONTAINER,
        name=image.name.rpartition(":")[0] or image.name,
        version=labels.get("org.opencontainers.image.version", ""),
        description=labels.get("org.opencontainers.image.description"),
        bom_ref=image.name,
        hashes=[_sha256(image.digest.removeprefix("sha256:"))],
        licenses=[LicenseFactory().make_from_string(labels["org.opencontainers.image.licenses"])]
        if "org.opencontainers.image.licenses" in labels
        else [],
    )
    bom = Bom(components=[*debian(image), *python(image), *encoder(image)])
    bom.metadata.component = made
    bom.register_dependency(made, bom.components)
    return bom


def debian(image: ImageFiles) -> Iterator[Component]:
    """Debian's packages that are installed."""
    if DPKG not in image.entries:
        return
    release = _fields(image.read("etc/os-release").decode().replace('"', ""), "=")
    for paragraph in image.read(DPKG).decode(errors="replace").split("\n\n"):
        fields = _fields(paragraph, ": ")
        if fields.get("Status", "").endswith(" ok installed"):
            where = {"arch": fields["Architecture"], "distro": f"{release['ID']}-{release['VERSION_ID']}"}
            purl = PackageURL("deb", release["ID"], fields["Package"], fields["Version"], where)
            yield Component(name=fields["Package"], version=fields["Version"], purl=purl, bom_ref=str(purl))


def python(image: ImageFiles) -> Iterator[Component]:
    """Python's packages that are installed, with the checksums of the files that the lock allows."""
    allowed = locked(image.read(LOCK).decode()) if LOCK in image.entries else {}
    seen = set()
    for path in sorted(image.entries):
        if not re.search(r"(\.dist-info/METADATA|\.egg-info(/PKG-INFO)?)$", path) or not image.entries[path].member.isfile():
            continue
        headers = HeaderParser().parsestr(image.read(path).decode(errors="replace"))
        name, version = normalized(headers["Name"]), headers["Version"]
        if (name, version) in seen:
            continue
        seen.add((name, version))
        purl = PackageURL("pypi", None, name, version)
        hashes = [_sha256(digest) for digest in allowed.get((name, version), [])]
        yield Component(
            name=headers["Name"],
            version=version,
            purl=purl,
            bom_ref=str(purl),
            description=headers.get("Summary"),
            licenses=_licenses(headers.get("License-Expression") or headers.get("License") or ""),
            external_references=[ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(str(purl)), hashes=hashes)]
            if hashes
            else [],
        )


def encoder(image: ImageFiles) -> Iterator[Component]:
    """The sentence encoder, where the image has one: the graph by its own checksum, the weights that it was exported from by theirs."""
    if ENCODER not in image.entries:
        return
    fetched = _fetch_encoder()
    owner, model = fetched.MODEL.split("/")
    purl = PackageURL("huggingface", owner, model, fetched.REVISION)
    yield Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=fetched.MODEL,
        version=fetched.REVISION,
        purl=purl,
        bom_ref=str(purl),
        hashes=[_sha256(hashlib.sha256(image.read(ENCODER)).hexdigest())],
        licenses=_licenses(fetched.LICENSE),
        external_references=[
            ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(f"{fetched.PUBLISHER}/{file}"), hashes=[_sha256(digest)])
            for file, digest in fetched.FILES.items()
        ],
    )


def locked(lock: str) -> dict[tuple[str, str], list[str]]:
    """The SHA-256 checksums that a lock allows for each name and version."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    entry = ("", "")
    for line in lock.splitlines():
        if pinned := re.match(r"([\w.-]+)(?:\[[\w,-]+\])?==([^\s\\;]+)", line):
            entry = (normalized(pinned[1]), pinned[2])
        found[entry] += re.findall(r"--hash=sha256:([0-9a-f]{64})", line)
    return {entry: digests for entry, digests in found.items() if digests}


def normalized(name: str) -> str:
    """A Python package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _fields(text: str, separator: str) -> Mapping[str, str]:
    return dict(line.split(separator, 1) for line in text.splitlines() if separator in line and not line.startswith((" ", "#")))


def _licenses(text: str) -> Sequence[License]:
    """The license that a package's metadata names. A whole text instead of a name is left out: the package carries it in its own files."""
    first = text.strip().splitlines()[0].strip() if text.strip() else ""
    return [LicenseFactory().make_from_string(first)] if 0 < len(first) <= NAME_LENGTH and first != "UNKNOWN" else []


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _fetch_encoder() -> ModuleType:
    """The module that names the encoder's files. It is no part of a package: the image's build runs it by itself."""
    spec = spec_from_file_location("fetch_encoder", ROOT / "scheduler_sidecar" / "fetch_encoder.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
