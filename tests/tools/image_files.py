"""Read the files of an image from its OCI archive, as a container would see them: `ImageFiles.open(path)`.

Layers are laid over one another, and what a later one removes is gone. Nothing is unpacked. `sbom.py`, `sbom_components.py` and
`release/images.py` read with it.
"""

import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

_REMOVED: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or link of an image: the tar member that describes it, and the layer that holds it."""

    member: tarfile.TarInfo
    layer: tarfile.TarFile


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """An image's configuration, the digest of its manifest, and its entries by path (without a slash in front)."""

    name: str
    digest: str
    config: Mapping[str, Any]
    entries: Mapping[str, Entry]

    @classmethod
    @contextmanager
    def open(cls, archive: Path) -> Iterator["ImageFiles"]:
        """The only image of an archive, as long as the block lasts. Raises KeyError or tarfile.TarError for what is no such archive."""
        with tarfile.open(archive) as outer:
            names = {member.name.removeprefix("./"): member for member in outer.getmembers()}

            def blob(digest: str) -> tarfile.TarInfo:
                return names["blobs/" + digest.replace(":", "/")]

            def document(member: tarfile.TarInfo) -> dict[str, Any]:
                found = outer.extractfile(member)
                assert found is not None
                loaded: dict[str, Any] = json.loads(found.read())
                return loaded

            (described,) = document(names["index.json"])["manifests"]
            manifest = document(blob(described["digest"]))
            if "layers" not in manifest:  # docker wraps its manifest in an index of its own
                described = next(one for one in manifest["manifests"] if one.get("platform", {}).get("os") != "unknown")
                manifest = document(blob(described["digest"]))
            with ExitStack() as opened:
                digests = [layer["digest"] for layer in manifest["layers"]]
                layers = [opened.enter_context(tarfile.open(fileobj=outer.extractfile(blob(digest)))) for digest in digests]
                name = described.get("annotations", {}).get("io.containerd.image.name", archive.stem)
                yield cls(name, described["digest"], document(blob(manifest["config"]["digest"])), merged(layers))

    def read(self, path: str) -> bytes:
        """The content of a file; of a link, that of what it leads to. Raises KeyError when there is none."""
        entry = self.entries[path]
        if entry.member.issym():
            return self.read(_target(path, entry.member.linkname))
        found = entry.layer.extractfile(entry.member)
        if found is None:
            raise KeyError(f"{path} is no file")
        return found.read()

    def below(self, folder: str) -> Iterator[str]:
        """The paths below a folder."""
        return (path for path in self.entries if path.startswith(f"{folder}/"))


def merged(layers: list[tarfile.TarFile]) -> dict[str, Entry]:
    """The entries of all layers, lowest first."""
    entries: dict[str, Entry] = {}
    for layer in layers:
        members = {str(PurePosixPath(member.name.lstrip("/"))): member for member in layer.getmembers()}
        for path in members:
            folder, name = PurePosixPath(path).parent, PurePosixPath(path).name
            if name == _OPAQUE:
                _remove_below(entries, str(folder))
            elif name.startswith(_REMOVED):
                gone = str(folder / name.removeprefix(_REMOVED))
                entries.pop(gone, None)
                _remove_below(entries, gone)
        for path, member in members.items():
            if not PurePosixPath(path).name.startswith(_REMOVED):
                if path in entries and entries[path].member.isdir() and not member.isdir():
                    _remove_below(entries, path)
                entries[path] = Entry(member, layer)
    entries.pop(".", None)
    return entries


def _remove_below(entries: dict[str, Entry], folder: str) -> None:
    for path in [path for path in entries if path.startswith(f"{folder}/")]:
        del entries[path]


def _target(path: str, link: str) -> str:
    """Where a symbolic link leads, within the image."""
    parts: list[str] = []
    for part in (PurePosixPath("/") / PurePosixPath(path).parent / link).parts[1:]:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
