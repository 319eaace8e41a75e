"""The kubectl plugin for krew: one program that needs nothing but Python, in an archive, and the manifest that krew reads.

The program is a zip file that Python runs: the plugin, the names of the contract, and click. The same sources give the same bytes.
`__main__.py` writes both.
"""

import gzip
import hashlib
import importlib.metadata
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

PROGRAM: Final = "kubectl-alise"
_START: Final = b"#!/usr/bin/env python3\n"
_MAIN: Final = "import sys\n\nfrom kubectl_alise.__main__ import main\n\nsys.exit(main())\n"
# What the plugin imports, by the folder that the package is in.
_PACKAGES: Final = {"operator/kubectl_alise": "kubectl_alise", "engine_image/alise_contract": "alise_contract"}
# The plugin uses no message of the contract.
_NAMES: Final = frozenset({"__init__.py", "names.py", "page.py", "release.py"})
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def write(root: Path, version: str, address: str, into: Path) -> None:
    """Write the archive and `alise.krew.yaml`. `address` is where the files of the release will be, without the file's name."""
    archive = into / f"{PROGRAM}-{version}.tar.gz"
    archive.write_bytes(packed(root, version))
    manifest = krew_manifest(version, f"{address.rstrip('/')}/{archive.name}", hashlib.sha256(archive.read_bytes()).hexdigest())
    (into / "alise.krew.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")


def packed(root: Path, version: str) -> bytes:
    """The archive: the program and the licenses of what it holds."""
    licenses = {"LICENSE": (root / "LICENSE").read_bytes(), "LICENSE.click": _of_click("licenses/LICENSE.txt")}
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as outer,
        tarfile.open(fileobj=outer, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in {PROGRAM: program(root, version), **licenses}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if name == PROGRAM else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def program(root: Path, version: str) -> bytes:
    """The zip file that Python runs, with what says the version to `kubectl alise --version`."""
    metadata = f"Metadata-Version: 2.1\nName: alise\nVersion: {version}\n"
    made = [("__main__.py", _MAIN.encode()), (f"alise-{version}.dist-info/METADATA", metadata.encode())]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted([*_sources(root), *made]):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return _START + buffer.getvalue()


def _sources(root: Path) -> Iterator[tuple[str, bytes]]:
    for folder, package in _PACKAGES.items():
        base = root / folder
        for path in sorted(path for path in base.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            if package != "alise_contract" or str(path.relative_to(base)) in _NAMES:
                yield f"{package}/{path.relative_to(base)}", path.read_bytes()
    click = importlib.metadata.distribution("click")
    for file in click.files or ():
        if file.suffix == ".py":
            yield str(file), click.locate_file(file).read_bytes()  # type: ignore[attr-defined]


def _of_click(ending: str) -> bytes:
    """The file of click's distribution whose path ends so."""
    click = importlib.metadata.distribution("click")
    (found,) = (file for file in click.files or () if str(file).endswith(ending))
    content: bytes = click.locate_file(found).read_bytes()  # type: ignore[attr-defined]
    return content


def krew_manifest(version: str, uri: str, sha256: str) -> dict[str, object]:
    """The manifest of the plugin `alise`."""
    return {
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": "alise"},
        "spec": {
            "version": f"v{version}",
            "homepage": uri.rpartition("/")[0],
            "shortDescription": "Show why a language model's request waits",
            "description": "Shows what an AliseEngine does, why a request waits and what is wrong. Drains pods and packs support bundles.",
            "caveats": "Needs Python 3.11 or newer as python3.",
            "platforms": [
                {
                    "selector": {"matchExpressions": [{"key": "os", "operator": "In", "values": ["linux", "darwin"]}]},
                    "uri": uri,
                    "sha256": sha256,
                    "bin": PROGRAM,
                }
            ],
        },
    }
