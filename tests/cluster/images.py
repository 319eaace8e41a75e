"""Images in our containerd: write small ones, import archives, list what is there.

containerd's content is in the cache and outlives a cluster, so an archive is imported once. Nothing is ever pulled. `cluster.py`, `node.py`
and `tests/tools/run_cluster.py` call it.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.errors import ClusterError
from tests.cluster.progress import step
from tests.cluster.state import State

NAMESPACE = "k8s.io"
IMPORT_SECONDS = 900.0
NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class Program:
    """A file in an image that may be run."""

    path: str
    content: bytes


def socket_path(at: State) -> Path:
    """Where this cluster's containerd listens."""
    return at.sockets / "containerd.sock"


def ctr(at: State, *arguments: str, timeout_seconds: float = 60.0) -> str:
    """What containerd's own client printed. Raises ClusterError when the node is not up."""
    if not socket_path(at).exists():
        raise ClusterError("this cluster has no containerd running; start the whole node first: `python -m tests.cluster up`")
    return run(["ctr", "--address", str(socket_path(at)), "--namespace", NAMESPACE, *arguments], timeout_seconds=timeout_seconds)


def snapshotter(at: State) -> str:
    """How containerd keeps unpacked images: overlayfs, or plain copies where the cache itself lies on an overlay (in a container)."""
    return "native" if run(["stat", "-f", "-c", "%T", str(at.folder)], timeout_seconds=10).strip() == "overlayfs" else "overlayfs"


def parse_listing(listing: str) -> dict[str, str]:
    """Image name to digest, from `ctr images list`."""
    rows = [line.split() for line in listing.splitlines()[1:] if line.strip()]
    return {row[0]: row[2] for row in rows if len(row) > 2 and not row[0].startswith("sha256:")}


def list_images(at: State) -> dict[str, str]:
    """The images that pods can use now: full name to digest."""
    return parse_listing(ctr(at, "images", "list"))


def archive_images(archive: Path) -> dict[str, str]:
    """Image name to digest of an OCI archive; empty when its names or digests cannot be known before the import (Docker's format).

    Raises ClusterError when the file is no archive, or when the name is not a full one (containerd would make one up).
    """
    try:
        with tarfile.open(archive) as tar:
            member = next((member for member in tar if member.name.removeprefix("./") == "index.json"), None)
            content = tar.extractfile(member) if member is not None else None
            index = json.loads(content.read()) if content is not None else {"manifests": []}
    except (OSError, tarfile.TarError, ValueError) as error:
        raise ClusterError(f"{archive} cannot be read as an image archive: {error}") from error
    named = {}
    for manifest in index["manifests"]:
        annotations = manifest.get("annotations") or {}
        name = next((annotations[key] for key in NAME_ANNOTATIONS if annotations.get(key)), None)
        if name is None:
            continue
        if "/" not in name or ":" not in name:
            raise ClusterError(
                f"{archive} calls its image {name!r}; give it a full name when writing it, like localhost/alise/operator:dev"
            )
        named[name] = manifest["digest"]
    return named


def import_images(at: State, archives: Sequence[Path]) -> list[Path]:
    """Import archives into the cluster's containerd; return those that were not there yet. Raises ClusterError or CommandFailed."""
    present = list_images(at)
    imported = []
    for archive in archives:
        wanted = archive_images(archive)
        if wanted and all(present.get(name) == digest for name, digest in wanted.items()):
            continue
        with step(f"import {archive.name}"):
            import_one(at, archive)
        imported.append(archive)
    return imported


def import_one(at: State, archive: Path) -> None:
    """Import one archive, whether it is there or not."""
    ctr(at, "images", "import", "--snapshotter", snapshotter(at), str(archive), timeout_seconds=IMPORT_SECONDS)


def write_archive(into: Path, name: str, program: Program, environment: Mapping[str, str] | None = None) -> Path:
    """Write an OCI archive of an image that holds one static program and runs it. The same input gives the same digest."""
    layer = _layer(program)
    settings = {"Entrypoint": [program.path], "Env": [f"{key}={value}" for key, value in (environment or {}).items()]}
    root = {"type": "layers", "diff_ids": [_digest(layer)]}
    config = json.dumps({"architecture": _architecture(), "os": "linux", "config": settings, "rootfs": root}).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    ).encode()
    named = {**_descriptor("application/vnd.oci.image.manifest.v1+json", manifest), "annotations": {NAME_ANNOTATIONS[0]: name}}
    with tarfile.open(into, "w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [named]}).encode())
        for blob in (manifest, config, layer):
            _add(tar, f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}", blob)
    return into


def compile_static(source: str, into: Path) -> bytes:
    """Compile C to a program that needs no files beside it."""
    run(["gcc", "-static", "-O2", "-Wall", "-Werror", "-s", "-x", "c", "-o", str(into), "-"], timeout_seconds=60, text_in=source)
    return into.read_bytes()


def _layer(program: Program) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, program.path.lstrip("/"), program.content, mode=0o755)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _architecture() -> str:
    return run(["dpkg", "--print-architecture"], timeout_seconds=10).strip()
