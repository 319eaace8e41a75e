"""The parts of `make bench-gpu` that need vLLM, on one model runner: `python -m tests.bench.gpu_vllm --runner 1 --rows FILE`.

They are the exactness rounds of `tests/engine/fuzz.py` (fp32, raw store), and the decoding steps of a batch while KV of others is saved and
brought back beside them. Those are on a model of an 8B's shape with random weights: a small one's step ends before the host has issued
the copies, and that would be all there is to see. Where the GPU has no room for it a small one is taken, which rows and figures say; what
the host takes to issue a step's copies is a figure of its own.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.bench import models
from tests.bench.gpu_standalone.rows import attempt
from tests.bench.harness import Figure, Row, median, verdict

RUNNERS: Final = ("1", "2")
CODECS: Final = ("raw", "int8")
BLOCK_SIZE: Final = 16
EXACT_TURNS: Final = 150
DECODING: Final = 8
# What is saved, and as much brought back, beside a step: a slice of a prefetch.
SWAPPED_BYTES: Final = 32 << 20
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Decoder:
    """A model to decode with: its folder (written when it is asked for), how vLLM gets its weights, and the KV cache it is run with."""

    name: str
    folder: Callable[[], Path]
    load_format: str
    # Weights, KV cache and what a step needs.
    gpu_bytes: int
    block_size: int = BLOCK_SIZE


EIGHT_BILLION: Final = Decoder("8B", models.eight_billion, "dummy", 24 * GIB)
SMALL: Final = Decoder("25M", models.wide, "auto", 2 * GIB)


def decoder(gpu_bytes: int) -> Decoder:
    """The model for a GPU with this much free memory."""
    return EIGHT_BILLION if gpu_bytes >= EIGHT_BILLION.gpu_bytes else SMALL


def measure(runner: str, quick: bool) -> Iterator[Row]:
    """Rows of both parts. The process is this runner's: vLLM reads which one it is when it is imported."""
    os.environ.update(VLLM_USE_V2_MODEL_RUNNER=str(int(runner == "2")), VLLM_LOGGING_LEVEL="ERROR")
    if runner == "2":
        from alise_engine.compat import refusals

        refusals.check_model_runner = lambda config: None
    for name, part in (("exactness", _exactness), ("decoding", _decoding)):
        yield from ({"part": name, "runner": runner, "kind": "measured", **row} for row in attempt(name, partial(part, quick)))


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Of each runner that has rows; those of V2 end in `_v2`."""
    return [figure for runner in RUNNERS for figure in _of_runner([row for row in rows if row.get("runner") == runner], runner)]


def wrong(found: Sequence[Figure]) -> list[Figure]:
    """Figures that say that an answer was lost, changed or left over."""
    return [figure for figure in found if figure.goal == 0 and verdict(figure) == "missed"]


def _of_runner(rows: Sequence[Row], runner: str) -> Iterator[Figure]:
    suffix = "" if runner == "1" else f"_v{runner}"

    def of(part: str, column: str, **where: Any) -> list[float]:
        chosen = [row for row in rows if (row["part"], row["kind"]) == (part, "measured")]
        return [float(row[column]) for row in chosen if all(row[key] == value for key, value in where.items())]

    if preemptions := sum(of("exactness", "preemptions")):
        yield Figure(f"gpu_divergences{suffix}", sum(of("exactness", "diverged")), "answers", "lower", 0)
        yield Figure(f"gpu_stuck{suffix}", sum(of("exactness", "stuck")), "requests", "lower", 0)
        yield Figure(f"gpu_leaked{suffix}", sum(of("exactness", "leaked")), "blocks and bytes", "lower", 0)
        yield Figure(f"gpu_preemptions{suffix}", preemptions, "preemptions", "higher")
        exact = sum(of("exactness", "exact")) / preemptions
        yield Figure(f"gpu_exact_resume_share{suffix}", exact, "of preemptions", "higher", 0.95)
    name = next((row["model"] for row in rows if (row["part"], row["kind"]) == ("decoding", "measured")), "")
    for codec in CODECS:
        alone, swapping = (of("decoding", "seconds", codec=codec, swapping=swaps) for swaps in (False, True))
        if alone and swapping:
            slower = 100 * (median(swapping) / median(alone) - 1)
            yield Figure(f"gpu_decode_slowdown_{codec}_pct{suffix}", slower, f"%, {name}", "lower", 3.0)
            issue = median(of("decoding", "issue_seconds", codec=codec, swapping=True))
            yield Figure(f"gpu_copy_issue_{codec}_ms{suffix}", 1e3 * issue, f"ms of the host per step, {name}", "lower")
    if steps := of("decoding", "seconds", swapping=False):
        yield Figure(f"gpu_decode_step_ms{suffix}", 1e3 * median(steps), f"ms, {name}", "lower")


def _exactness(quick: bool) -> Iterator[Row]:
    from alise_engine.serve import tiny_model
    from tests.engine.fuzz import EVERYTHING, EXACT, OPTIONS, Round, questions
    from tests.engine.harness import Engine

    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model.write_model(Path(folder))
        for name, options in OPTIONS.items():
            engine = Engine(model, options)
            asked = questions(engine, 1, 24)
            for seed in range(1 if quick else 10):
                for mix in (EXACT, EVERYTHING):
                    outcome = Round(engine, asked, seed, mix).run(EXACT_TURNS)
                    counted = outcome.preemptions if mix is EXACT else 0
                    yield {
                        "engine": name, "seed": seed, "diverged": len(outcome.diverged), "stuck": outcome.stuck,
                        "leaked": abs(outcome.leaked_blocks) + outcome.leaked_bytes,
                        "preemptions": counted, "exact": outcome.exact_resumes if counted else 0,
                    }  # fmt: skip
            engine.close()


def _decoding(quick: bool) -> Iterator[Row]:
    import torch

    yield from decoding(decoder(torch.cuda.mem_get_info()[0]), 60 if quick else 600)


def decoding(model: Decoder, steps: int) -> Iterator[Row]:
    """Steps of a decoding batch, alone and while blocks that belong to no request are saved and filled again beside every step."""
    from alise_engine.kv.work import Drop, Load, Save
    from tests.engine.harness import Engine, EngineOptions

    options = EngineOptions(
        max_num_seqs=DECODING, blocks=1200, block_size=model.block_size, max_model_len=4096, dtype="bfloat16",
        load_format=model.load_format, host_bytes=GIB,
    )  # fmt: skip
    engine = Engine(model.folder(), options)
    connector: Any = engine.scheduler.connector
    pool = engine.scheduler.kv_cache_manager.block_pool
    count = min(256, max(1, SWAPPED_BYTES // engine.snapshot().shape.block_bytes))
    with _IssueTime() as issue:
        for codec in connector.codecs():
            engine.fresh()
            # Token ids alone: those of a model without a tokenizer of its own cannot be decoded.
            names = [engine.ask([256, *([65] * 500)], 2_000, job=f"job{index}", detokenize=False) for index in range(DECODING)]
            engine.run_until(partial(_all_decode, engine, names))
            taken = pool.get_new_blocks(2 * count)
            ids = tuple(block.block_id for block in taken)
            for step in range(steps):
                swapping = bool(step // 20 % 2)
                if swapping:
                    connector._meta.writes += [
                        Drop("swapped"),
                        Save("swapped", ids[:count], 0, count * model.block_size, codec, beside=True),
                    ]
                    connector._meta.loads.append(Load("swapped", ids[count:], 0, ahead=True))
                issue.seconds = 0.0
                began = time.perf_counter()
                engine.step()
                seconds = time.perf_counter() - began
                yield {"model": model.name, "codec": codec, "swapping": swapping, "seconds": seconds, "issue_seconds": issue.seconds}
            pool.free_blocks(taken)
    engine.close()


class _IssueTime:
    """Counts the host's time in the two calls that issue a step's copies."""

    CALLS: Final = ("begin_step", "start_loads")

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> "_IssueTime":
        from alise_engine.kv.worker import WorkerSide

        self._originals = {name: getattr(WorkerSide, name) for name in self.CALLS}
        for name, original in self._originals.items():
            setattr(WorkerSide, name, self._timed(original))
        return self

    def __exit__(self, *exception: object) -> None:
        from alise_engine.kv.worker import WorkerSide

        for name, original in self._originals.items():
            setattr(WorkerSide, name, original)

    def _timed(self, original: Any) -> Any:
        def timed(*args: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*args)
            finally:
                self.seconds += time.perf_counter() - began

        return timed


def _all_decode(engine: Any, names: list[str]) -> bool:
    return all(engine.tokens(name) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu_vllm", description="What a GPU shows of alise in vLLM.")
    parser.add_argument("--runner", choices=RUNNERS, required=True, help="vLLM's model runner")
    parser.add_argument("--rows", type=Path, required=True, help="where the rows go")
    parser.add_argument("--quick", action="store_true", help="for a look rather than a figure")
    arguments = parser.parse_args()
    with arguments.rows.open("w") as out:
        for row in measure(arguments.runner, arguments.quick):
            out.write(json.dumps(row) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
