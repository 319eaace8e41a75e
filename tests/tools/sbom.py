"""Write what each image is made of, as CycloneDX: `make sbom`.

It first builds the images that changed. One JSON file per image in dist/sbom: Debian's packages as dpkg knows them, Python's as they are
installed, with the checksums that their lock allows, and the sentence encoder. All of it is read from the built image, not from what it
should hold.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.cluster import image_build
from tests.cluster.errors import ClusterError, UnsupportedMachine
from tests.tools.image_archives import archive_of
from tests.tools.image_files import ImageFiles
from tests.tools.sbom_components import bill

ROOT: Final = Path(__file__).resolve().parents[2]
VERSION: Final = SchemaVersion.V1_6


def document(image: ImageFiles, *, committed_at: int | None = None, serial_number: UUID | None = None) -> str:
    """The bill of materials of an image, as JSON. Raises ValueError when it does not keep to CycloneDX's schema.

    Its time is now and its serial number a new one, unless they are given: the time in seconds since 1970.
    """
    made = bill(image)
    if committed_at is not None:
        made.metadata.timestamp = datetime.fromtimestamp(committed_at, UTC)
    if serial_number is not None:
        made.serial_number = serial_number
    text = make_outputter(made, OutputFormat.JSON, VERSION).output_as_string(indent=1)
    complaint = JsonStrictValidator(VERSION).validate_str(text)
    if complaint is not None:
        raise ValueError(f"the bill of {image.name} is not CycloneDX {VERSION.to_version()}: {complaint}")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.sbom", description="Write a CycloneDX bill of materials of each image.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones, all by default: {', '.join(image_build.IMAGES)}")
    options = parser.parse_args(argv)
    folder = ROOT / "dist" / "sbom"
    try:
        for built in image_build.build(options.names):
            with archive_of(built) as archive, ImageFiles.open(archive) as image:
                text = document(image)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{built.name}.cdx.json"
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT), flush=True)
    except (ClusterError, UnsupportedMachine) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
