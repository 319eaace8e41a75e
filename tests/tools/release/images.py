"""What a release needs of the built images: their bills of materials, and their place in the registry.

`__main__.py` writes the bills and pushes the images with it.
"""

import uuid
from pathlib import Path

from tests.cluster import image_build
from tests.cluster.image_build import Built
from tests.cluster.image_manifests import Registry
from tests.cluster.image_tools import choose_builder
from tests.tools.image_archives import archive_of
from tests.tools.image_files import ImageFiles
from tests.tools.sbom import document

# Names of bills are derived from the images' digests below it.
_SPACE = uuid.UUID("5b0c6d0e-3f0d-5c0a-9f6e-6f1d3b0c8a11")


def write_bills(built: list[Built], committed_at: int, into: Path) -> None:
    """Write a CycloneDX bill of each image; the same image of the same commit has the same bill."""
    for one in built:
        with archive_of(one) as archive, ImageFiles.open(archive) as image:
            text = document(image, committed_at=committed_at, serial_number=uuid.uuid5(_SPACE, image.digest))
        (into / f"{one.name}.cdx.json").write_text(text, encoding="utf-8")


def push(built: list[Built], registry: Registry) -> None:
    """Push the images with the version for their tag. Raises CommandFailed with the builder's words."""
    builder = choose_builder(image_build.images_dir())
    for one in built:
        builder.push(one.reference, registry.name(one.name), image_build.PUSH_SECONDS)
