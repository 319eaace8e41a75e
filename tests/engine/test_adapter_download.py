"""The downloader against a server that answers as the hub does, for one repository: which files are fetched, and of which revision."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from alise_contract.adapters import Adapter
from alise_engine.api import adapter_files
from alise_engine.errors import AdapterError

pytestmark = pytest.mark.process

REPOSITORY = "org/support-lora"
COMMIT = "1" * 40
FILES = {
    "adapter_config.json": b'{"r": 8}',
    "adapter_model.safetensors": b"weights",
    "adapter_model.bin": b"a pickle",
    "checkpoint-100/adapter_model.safetensors": b"older weights",
    "README.md": b"words",
}


class Hub(ThreadingHTTPServer):
    """Serves FILES as the revision `v2` of REPOSITORY, and remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.fetched: set[str] = set()
        self.tokens: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Not to the terminal."""

    def _answer(self, *, with_body: bool) -> None:
        self.server.tokens.add(self.headers.get("authorization", ""))
        path = self.path.partition("?")[0]
        if path == f"/api/models/{REPOSITORY}/revision/v2":
            self._send(json.dumps({"id": REPOSITORY, "sha": COMMIT}).encode(), "application/json", with_body)
        elif path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            tree = [{"type": "file", "path": name, "size": len(body), "oid": "0"} for name, body in FILES.items()]
            self._send(json.dumps(tree).encode(), "application/json", with_body)
        elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/") and (name := path.split("/", 5)[5]) in FILES:
            self.server.fetched |= {name} if with_body else set()
            self._send(FILES[name], "application/octet-stream", with_body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound" if "/revision/" in path else "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, body: bytes, kind: str, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield hub
        hub.shutdown()


async def test_only_the_adapters_own_files_are_fetched_with_the_token(hub: Hub, tmp_path: Path) -> None:
    folder = await adapter_files.find(Adapter("support", REPOSITORY, "v2"), 16)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "adapter_config.json": FILES["adapter_config.json"],
        "adapter_model.safetensors": FILES["adapter_model.safetensors"],
    }
    assert hub.fetched == {"adapter_config.json", "adapter_model.safetensors"}
    assert "Bearer hf_secret" in hub.tokens
    # The path of another commit is another path, by which the prefix cache tells them apart.
    assert folder.name == COMMIT
    assert folder.is_relative_to(tmp_path)


async def test_a_revision_that_does_not_exist_is_named(hub: Hub) -> None:
    with pytest.raises(AdapterError, match="org/support-lora cannot be downloaded: RevisionNotFoundError"):
        await adapter_files.find(Adapter("support", REPOSITORY, "v3"), 16)
