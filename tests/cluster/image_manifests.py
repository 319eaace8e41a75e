"""Manifests with the images' names as they are in the user's registry.

There an image is tagged with its content. A node keeps an image that it has (IfNotPresent), so under one tag a second push would never
reach it; and a tag that is another one is what makes the operator and the engines roll over to it. `image_build.py`,
`tests/tools/run_cluster.py` and the fixtures of `tests/e2e` call it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

LOCAL: Final = "localhost/alise/"
_NAMED: Final = re.compile(re.escape(LOCAL) + r"([a-z-]+):([\w.-]+)")


@dataclass(frozen=True, slots=True)
class Registry:
    """The user's registry (host/name), and the tag of each image there, by its short name."""

    where: str
    tags: Mapping[str, str]

    def name(self, image: str) -> str:
        """An image's name there. One path segment, since some registries take no more."""
        return f"{self.where.rstrip('/')}/alise-{image}:{self.tags[image]}"


def with_registry(text: str, registry: Registry | None) -> str:
    """A manifest's text with our images' names as they are in the user's registry; as it is without one."""
    return text if registry is None else _NAMED.sub(lambda found: registry.name(found[1]), text)


def write(manifests: Path, registry: Registry, into: Path) -> list[Path]:
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


def write_values(manifests: Path, registry: Registry, into: Path) -> Path:
    """`values.yaml`, the chart's values for this registry."""
    defaults = yaml.safe_load((manifests / "chart" / "values.yaml").read_text(encoding="utf-8"))
    path = into / "values.yaml"
    path.write_text(with_registry(yaml.safe_dump({"images": defaults["images"]}, sort_keys=False), registry), encoding="utf-8")
    return path


def _resources(folder: Path) -> Iterator[Path]:
    """The files that a kustomization and those below it name."""
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]:
        path = folder / name
        yield from _resources(path) if path.is_dir() else (path,)
