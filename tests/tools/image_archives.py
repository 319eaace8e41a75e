"""The archive of a built image: where the builder wrote it, or saved from docker's or podman's store for as long as it is read.

`sbom.py` and `release/images.py` open it.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import image_build
from tests.cluster.commands import run
from tests.cluster.image_tools import choose_builder

SAVE_SECONDS = 600


@contextmanager
def archive_of(built: image_build.Built) -> Iterator[Path]:
    """The path of the image's OCI archive, as long as the block lasts."""
    if built.archive is not None:
        yield Path(built.archive)
        return
    with tempfile.TemporaryDirectory(prefix="alise-image-") as folder:
        path = Path(folder) / f"{built.name}.tar"
        program = choose_builder(image_build.images_dir()).name
        form = ["--format", "oci-archive"] if program == "podman" else []
        run([program, "image", "save", *form, "--output", str(path), built.reference], timeout_seconds=SAVE_SECONDS)
        yield path
