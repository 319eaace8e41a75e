"""Manifests with the images' names as they are in the user's registry."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

LOCAL: Final = "localhost/alise/"
_NAMED: Final = re.compile(re.escape(LOCAL) + r"([a-z-]+):([\w.-]+)")


def pushed(name: str, registry: str) -> str:
    """An image's name in the user's registry. One path segment, since some registries take no more."""
    return f"{registry.rstrip('/')}/alise-{name}:dev"


def with_registry(text: str, registry: str | None) -> str:
    """A manifest's text with our images' names as they are in the user's registry; as it is without one."""
    return text if registry is None else _NAMED.sub(lambda found: pushed(found[1], registry), text)


def write(manifests: Path, registry: str, into: Path) -> list[Path]:
    """`alise.yaml` (what `kubectl apply -k` takes) and `tiny.yaml` (the CPU sample) for this registry."""
    whole = "---\n".join(path.read_text(encoding="utf-8") for path in _resources(manifests))
    sample = (manifests / "samples" / "tiny.yaml").read_text(encoding="utf-8")
    into.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in (("alise.yaml", whole), ("tiny.yaml", sample)):
        path = into / name
        path.write_text(with_registry(text, registry), encoding="utf-8")
        written.append(path)
    return written


def _resources(folder: Path) -> Iterator[Path]:
    """The files that a kustomization and those below it name."""
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]:
        path = folder / name
        yield from _resources(path) if path.is_dir() else (path,)
