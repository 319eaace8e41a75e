"""`python -m tests.fuzz.child MODULE SECONDS FOLDER`: fuzzes one target with atheris, guided by the coverage of the code under test.

`run.py` starts it, a process for each target. Every distinct finding is written to FOLDER as `finding-N.json` at once, so that nothing is
lost however this process ends. libFuzzer leaves inputs that took too long or too much memory there as `timeout-*`, `oom-*` or `crash-*`.
"""

import json
import resource
import sys
import traceback
from pathlib import Path
from typing import Final

import atheris

from tests.fuzz.inputs import WORDS

# More than one target needs to be of use; each distinct place counts once.
MAX_FINDINGS: Final = 20
MAX_INPUT_BYTES: Final = 4096
_INPUT_SECONDS: Final = 25
_MEMORY_MIB: Final = 1536
_UNDER_TEST: Final = ["alise_engine", "alise_scheduler", "alise_contract"]


def main(module: str, seconds: int, folder: Path) -> None:
    with atheris.instrument_imports(include=_UNDER_TEST):
        from tests.fuzz.targets import load

        target = load(module)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    seen: set[tuple[str, ...]] = set()

    def once(data: bytes) -> None:
        try:
            target.target(data)
        except Exception as error:
            places = tuple(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[1:])
            kind = (type(error).__name__, *places)
            if kind not in seen and len(seen) < MAX_FINDINGS:
                seen.add(kind)
                found = {"error": f"{type(error).__name__}: {error}", "input": data.hex(), "traceback": traceback.format_exc()}
                (folder / f"finding-{len(seen)}.json").write_text(json.dumps(found))

    arguments = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={_INPUT_SECONDS}",
        f"-rss_limit_mb={_memory_mib()}",
        f"-artifact_prefix={folder}/",
        f"-dict={_dictionary(folder)}",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], once)
    atheris.Fuzz()


def _memory_mib() -> int:
    """The limit of resident memory. Linux hands a process's peak on to the programs that it starts, and libFuzzer looks at the peak: after
    a test process that held engines, every target began above a fixed limit."""
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return max(_MEMORY_MIB, inherited + _MEMORY_MIB // 2)


def _dictionary(folder: Path) -> Path:
    """Words that libFuzzer puts into inputs now and then."""
    path = folder / "words.dict"
    words = [word for word in WORDS if word.isascii() and len(word) > 1]
    path.write_text("".join(f'"{word}"\n' for word in [*words, "authorization", "x-api-key", "x-vllm-priority", "POST ", "Bearer "]))
    return path


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
