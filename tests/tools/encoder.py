"""The sentence encoder for this machine: `python -m tests.tools.encoder` builds it once, below $ALISE_CACHE, and prints its folder.

The image's build does the same (scheduler_sidecar/Dockerfile), with the same files: they fetch the weights, check them and export them,
in processes that are started here. Benchmarks and `serve.py` call `wanted()`: the folder that ALISE_ENCODER names, else this one.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from alise_scheduler.predictor.training import prior_fit
from alise_scheduler.predictor.training.prior_lines import LINES_FILE
from tests.tools import sources

ROOT = Path(__file__).resolve().parents[2]
FETCH = ROOT / "scheduler_sidecar" / "fetch_encoder.py"
EXPORT = FETCH.with_name("export_encoder.py")
PREDICTOR = ROOT / "scheduler_sidecar" / "alise_scheduler" / "predictor"
PROMPTS = PREDICTOR / "training" / LINES_FILE
_SOURCES = (
    *(FETCH, EXPORT, EXPORT.with_name("narrow_encoder.py")),
    *(PROMPTS, PROMPTS.with_name("prior_lines.py"), PREDICTOR / "models" / "wordpiece.py"),
)
_SECONDS = 600


VARIABLE = "ALISE_ENCODER"
NONE = "none"


def wanted(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The encoder's folder: the one that ALISE_ENCODER names, built if it names nothing, and None for `none`. Raises as `ensure`."""
    named = environ.get(VARIABLE, "")
    if named == NONE:
        return None
    return Path(named) if named else ensure()


def setting(folder: Path | None) -> str:
    """ALISE_ENCODER for a sidecar: an empty one means features alone."""
    return "" if folder is None else str(folder)


def ensure() -> Path:
    """The folder with encoder.onnx, vocab.txt and prior.npz. Raises subprocess.CalledProcessError when the weights cannot be had."""
    cache = Path(os.environ.get("ALISE_CACHE") or Path.home() / ".cache" / "alise")
    out = cache / "encoder" / sources.digest(_SOURCES)
    if not (out / "encoder.onnx").exists():
        _export(out)
    if prior_fit.stored_prior(out) is None:
        subprocess.run(
            [sys.executable, "-m", "alise_scheduler.predictor.training.prior_fit", str(out), "--make"], check=True, timeout=_SECONDS
        )
    return out


def _export(out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        source = Path(folder) / "weights"
        subprocess.run([sys.executable, str(FETCH), str(source)], check=True, timeout=_SECONDS)
        made = Path(folder) / "made"
        subprocess.run(
            [sys.executable, str(EXPORT), str(made), "--source", str(source), "--prompts", str(PROMPTS)], check=True, timeout=_SECONDS
        )
        if not out.exists():
            made.rename(out)


if __name__ == "__main__":
    print(ensure())
