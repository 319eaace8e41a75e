"""Runs fuzz targets in processes of their own, several at a time, and collects what they found.

`__main__.py`, `test_fuzz.py` and `tests/bench/fuzz.py` call it.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
# Where the inputs of findings are kept.
FINDINGS: Final = ROOT / "bench-results" / "fuzz"
# For importing and instrumenting what is under test, on a busy machine.
_START_SECONDS: Final = 180


@dataclass(frozen=True, slots=True)
class Found:
    """A finding: what was wrong, and the input that shows it (`tests.fuzz.targets.load(MODULE).target(bytes.fromhex(INPUT))`)."""

    error: str
    input: str
    # Where the input was written to; empty when there is none.
    file: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one target."""

    target: str
    seconds: float
    executions: int
    findings: tuple[Found, ...]

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def fuzz(targets: Mapping[str, str], seconds: int, at_once: int, kept_in: Path = FINDINGS) -> Iterator[Outcome]:
    """Fuzzes the modules by name, each for this long; returns them as they end."""
    with ThreadPoolExecutor(at_once) as pool:
        for done in as_completed([pool.submit(_fuzz, name, module, seconds, kept_in) for name, module in targets.items()]):
            yield done.result()


def _fuzz(name: str, module: str, seconds: int, kept_in: Path) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="alise-fuzz-") as folder:
        command = [sys.executable, "-m", "tests.fuzz.child", module, str(seconds), folder]
        started = time.monotonic()
        try:
            ended = subprocess.run(
                command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=seconds + _START_SECONDS, check=False
            )
            said, failed = ended.stderr.decode("utf-8", "replace"), ended.returncode != 0
        except subprocess.TimeoutExpired as error:
            said, failed = (error.stderr or b"").decode("utf-8", "replace") + "\nit did not end", True
        taken = time.monotonic() - started
        findings = [_kept(name, found["error"], bytes.fromhex(found["input"]), kept_in) for found in _written(Path(folder))]
        for artifact in sorted(path for kind in ("timeout", "oom", "crash") for path in Path(folder).glob(f"{kind}-*")):
            findings.append(_kept(name, f"libFuzzer ended: {artifact.name.partition('-')[0]}", artifact.read_bytes(), kept_in))
    units = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
    if (failed or units is None) and not findings:
        findings.append(Found("the fuzzer ended: " + " | ".join(said.splitlines()[-12:]), "", ""))
    return Outcome(name, round(taken, 1), int(units[1]) if units is not None else 0, tuple(findings))


def _written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("finding-*.json"))]


def _kept(name: str, error: str, data: bytes, kept_in: Path) -> Found:
    kept_in.mkdir(parents=True, exist_ok=True)
    path = kept_in / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
    path.write_bytes(data)
    return Found(error, data.hex(), str(path))
