"""What an image holds is read from its archive, and its bill of materials names all of it."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.tools import sbom
from tests.tools.image_files import ImageFiles
from tests.tools.sbom_components import locked

NAME = "localhost/alise/one:dev"
STATUS = """Package: tini
Status: install ok installed
Architecture: amd64
Version: 0.19.0-1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""
DIGESTS = ("ab" * 32, "cd" * 32)
LOCK = f"# a lock\ngrpcio==1.85.1 \\\n    --hash=sha256:{DIGESTS[0]} \\\n    --hash=sha256:{DIGESTS[1]}\n"
METADATA = "Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: Apache-2.0\n\nA description: with a colon\n"
SITE = "opt/alise/lib/python3.11/site-packages"
LOWER = {
    "etc/os-release": 'NAME="Debian"\nID=debian\nVERSION_ID="12"\n',
    "var/lib/dpkg/status": STATUS,
    "usr/lib/old/a": "a",
    "usr/lib/old/b": "b",
    "usr/bin/pip": "pip",
}
UPPER = {
    "usr/lib/old/.wh.a": "",
    "usr/bin/.wh.pip": "",
    f"{SITE}/grpcio-1.85.1.dist-info/METADATA": METADATA.format(name="grpcio", version="1.85.1"),
    f"{SITE}/alise-0.1.0.dist-info/METADATA": METADATA.format(name="alise", version="0.1.0"),
    "opt/alise-requirements.lock": LOCK,
    "opt/alise-encoder/encoder.onnx": "graph",
}


def layer(files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, "../lib/old/b"
        tar.addfile(link)
    return packed.getvalue()


def archive(path: Path, *layers: Mapping[str, str]) -> Path:
    """An OCI archive of an image with these layers, as the builder writes it."""
    blobs: dict[str, bytes] = {}

    def add(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"digest": f"sha256:{digest}", "size": len(content)}

    labels = {"org.opencontainers.image.version": "0.1.0", "org.opencontainers.image.licenses": "Apache-2.0"}
    config = add(json.dumps({"config": {"Labels": labels, "User": "65532:65532"}}).encode())
    manifest = add(json.dumps({"config": config, "layers": [add(layer(files)) for files in layers]}).encode())
    index = {"manifests": [manifest | {"annotations": {"io.containerd.image.name": NAME}}]}
    with tarfile.open(path, "w") as tar:
        for name, content in [("index.json", json.dumps(index).encode()), *((f"blobs/sha256/{digest}", blobs[digest]) for digest in blobs)]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return archive(tmp_path / "one.tar", LOWER, UPPER)


def components(text: str) -> dict[str, dict[str, Any]]:
    return {component["name"]: component for component in json.loads(text)["components"]}


def test_what_a_layer_removes_is_not_in_the_image(one: Path) -> None:
    with ImageFiles.open(one) as image:
        assert sorted(image.below("usr")) == ["usr/bin/python3", "usr/lib/old/b"]


def test_a_link_is_read_through(one: Path) -> None:
    with ImageFiles.open(one) as image:
        assert image.read("usr/bin/python3") == b"b"


@pytest.mark.parametrize(
    ("lower", "upper", "left"),
    [
        pytest.param({"a/b": "1", "a/c": "2"}, {"a/.wh..wh..opq": "", "a/d": "3"}, {"a/d"}, id="a folder that starts anew"),
        pytest.param({"a/b": "1", "ab": "2"}, {".wh.a": ""}, {"ab"}, id="a whole folder that is removed"),
        pytest.param({"a/b": "1"}, {"a/b": "changed"}, {"a/b"}, id="a file that is written again"),
    ],
)
def test_layers_are_laid_over_one_another(tmp_path: Path, lower: dict[str, str], upper: dict[str, str], left: set[str]) -> None:
    with ImageFiles.open(archive(tmp_path / "one.tar", lower, upper)) as image:
        assert set(image.entries) - {"usr/bin/python3"} == left


def test_a_bill_keeps_to_the_schema_and_names_what_the_image_holds(one: Path) -> None:
    with ImageFiles.open(one) as image:
        assert set(components(sbom.document(image))) == {"tini", "grpcio", "alise", "sentence-transformers/all-MiniLM-L6-v2"}


def test_a_bill_says_which_image_it_is_of(one: Path) -> None:
    with ImageFiles.open(one) as image:
        about = json.loads(sbom.document(image))["metadata"]["component"]
        assert (about["name"], about["version"], about["type"]) == ("localhost/alise/one", "0.1.0", "container")
        assert about["hashes"] == [{"alg": "SHA-256", "content": image.digest.removeprefix("sha256:")}]


def test_the_bill_of_a_release_is_the_same_every_time(one: Path) -> None:
    given: dict[str, Any] = {"committed_at": 1_700_000_000, "serial_number": UUID(int=7)}
    with ImageFiles.open(one) as image:
        first, again = (sbom.document(image, **given) for _ in range(2))
    assert first == again
    assert json.loads(first)["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")
    assert json.loads(first)["serialNumber"] == f"urn:uuid:{UUID(int=7)}"


def test_a_locked_package_has_the_checksums_of_its_lock(one: Path) -> None:
    with ImageFiles.open(one) as image:
        grpcio = components(sbom.document(image))["grpcio"]
    assert grpcio["purl"] == "pkg:pypi/grpcio@1.85.1"
    assert grpcio["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert {found["content"] for found in grpcio["externalReferences"][0]["hashes"]} == set(DIGESTS)


def test_a_package_of_debian_has_the_address_that_scanners_look_up(one: Path) -> None:
    with ImageFiles.open(one) as image:
        assert components(sbom.document(image))["tini"]["purl"] == "pkg:deb/debian/tini@0.19.0-1?arch=amd64&distro=debian-12"


def test_the_encoder_is_named_with_its_license_and_its_own_checksum(one: Path) -> None:
    with ImageFiles.open(one) as image:
        encoder = components(sbom.document(image))["sentence-transformers/all-MiniLM-L6-v2"]
    assert encoder["type"] == "machine-learning-model"
    assert encoder["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert encoder["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"graph").hexdigest()}]


def test_a_lock_is_read_by_name_and_version() -> None:
    assert locked(LOCK) == {("grpcio", "1.85.1"): list(DIGESTS)}
