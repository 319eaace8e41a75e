"""The files of a release that need no built image: manifests, chart, CRD and notes (plugin.py and krew.py make the plugin's), and the sums.

It reads the repository and writes into the folder that it is given. The same sources give the same bytes: no clock and no order of a
folder shows in them. `__main__.py` calls it.
"""

import gzip
import hashlib
import io
import shutil
import tarfile
from pathlib import Path
from typing import Final

from tests.cluster import image_manifests
from tests.cluster.image_build import CUDA, IMAGES
from tests.cluster.image_manifests import Registry
from tests.tools.chart.chart import NAME
from tests.tools.release.checks import notes

SUMS: Final = "SHA256SUMS"
NOTES: Final = "RELEASE_NOTES.md"
CRD: Final = "aliseengines.yaml"


def registry_of(version: str, where: str) -> Registry:
    """The names of the images of a release: every one has the version for its tag."""
    return Registry(where, dict.fromkeys((*IMAGES, CUDA.name), version))


def write(root: Path, version: str, where: str, into: Path) -> None:
    """Write the manifests, the chart, the CRD and the notes."""
    registry = registry_of(version, where)
    image_manifests.write(root / "manifests", registry, into)
    shutil.copyfile(root / "manifests" / "crd" / CRD, into / CRD)
    (into / f"{NAME}-{version}.tgz").write_bytes(chart_archive(root / "manifests" / "chart", registry))
    (into / NOTES).write_text(notes(version, (root / "CHANGELOG.md").read_text(encoding="utf-8")), encoding="utf-8")


def chart_archive(chart: Path, registry: Registry) -> bytes:
    """The chart as `helm package` packs it, with the images' names in the registry as its values. Links are followed."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for path in sorted(path for path in chart.rglob("*") if path.is_file()):
            content = path.read_bytes()
            if path.name == "values.yaml":
                content = image_manifests.with_registry(content.decode(), registry).encode()
            entry = tarfile.TarInfo(f"{NAME}/{path.relative_to(chart)}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS, which `sha256sum --check SHA256SUMS` takes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in paths]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
