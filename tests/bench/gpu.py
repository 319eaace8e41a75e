"""What only a GPU can show: `make bench-gpu`. `RUNNER=2 make bench-gpu` is for model runner V2, which alise refuses until this has passed.

Each part runs the engine's own code: the fused kernels against their torch reference; a save and its restore against what PCIe carries; the
exactness rounds of `tests/engine/fuzz.py` (fp32, raw store); and the decoding steps of a batch while KV of others is saved and brought back
beside them. Those are on a model of an 8B's shape with random weights: a small one's step is over before the host has issued the copies,
and that would be all there is to see. Where the GPU has no room for it a small one is taken, which rows and figures say; what the host
takes to issue a step's copies is a figure of its own. None of it has met a GPU yet: no figure of it has been measured.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.bench import models
from tests.bench.harness import Figure, Row, Settings, median

RUNNERS: Final = ("1", "2")
COPY_BYTES: Final = 1 << 30
# An 8B model's: 32 layers of 8 KV heads of 128 channels, bf16, 16-token blocks.
LAYERS, HEADS, CHANNELS, BLOCK_SIZE, TOKENS = 32, 8, 128, 16, 4096
EXACT_TURNS: Final = 150
DECODING: Final = 8
# What is saved, and as much brought back, beside a step: a slice of a prefetch.
SWAPPED_BYTES: Final = 32 << 20
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Decoder:
    """A model to decode with: its folder (made when asked for), how vLLM gets its weights, and the KV cache it is run with."""

    name: str
    folder: Callable[[], Path]
    load_format: str
    # Weights, KV cache and what a step needs.
    gpu_bytes: int
    block_size: int = BLOCK_SIZE


EIGHT_BILLION: Final = Decoder("8B", models.eight_billion, "dummy", 24 * GIB)
SMALL: Final = Decoder("25M", models.wide, "auto", 2 * GIB)


def decoder(gpu_bytes: int) -> Decoder:
    """The model for a GPU with so much free memory."""
    return EIGHT_BILLION if gpu_bytes >= EIGHT_BILLION.gpu_bytes else SMALL


def measure(settings: Settings) -> Iterator[Row]:
    """Rows of all parts. Raises SystemExit with one sentence where there is no GPU, or no such runner."""
    runner = os.environ.get("RUNNER", "1")
    if runner not in RUNNERS:
        raise SystemExit(f"RUNNER={runner} is no model runner of vLLM; use one of {', '.join(RUNNERS)}")
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(f"bench-gpu needs an NVIDIA GPU, and torch {torch.__version__} sees none on this machine")
    os.environ.update(VLLM_USE_V2_MODEL_RUNNER=str(int(runner == "2")), VLLM_LOGGING_LEVEL="ERROR")
    if runner == "2":
        from alise_engine import checks

        checks.check_model_runner = lambda config: None
    for part in (_kernels, _copies, _exactness, _decoding):
        yield from ({"part": part.__name__.strip("_"), "runner": runner, **row} for row in part(settings))


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    def of(part: str, column: str, **where: Any) -> list[float]:
        chosen = [row for row in rows if row["part"] == part and all(row[key] == value for key, value in where.items())]
        return [float(row[column]) for row in chosen]

    found = [
        Figure("gpu_kernel_bytes_apart_pct", 100 * max(of("kernels", "apart")), "% of a row's bytes", "lower"),
        Figure("gpu_divergences", sum(of("exactness", "diverged")), "answers", "lower", 0),
        Figure("gpu_stuck", sum(of("exactness", "stuck")), "requests", "lower", 0),
        Figure("gpu_leaked", sum(of("exactness", "leaked")), "blocks and bytes", "lower", 0),
        Figure("gpu_preemptions", sum(of("exactness", "preemptions")), "preemptions", "higher"),
        Figure(
            "gpu_exact_resume_share", sum(of("exactness", "exact")) / sum(of("exactness", "preemptions")), "of preemptions", "higher", 0.95
        ),
    ]
    for codec in ("raw", "int8"):
        share = median(of("copies", "pcie_seconds", codec=codec)) / median(of("copies", "seconds", codec=codec))
        found.append(Figure(f"gpu_round_trip_{codec}_pcie_fraction", share, "of the PCIe copy rate", "higher", 0.8))
    name = next(row["model"] for row in rows if row["part"] == "decoding")
    for codec in ("raw", "int8"):
        alone, swapping = (median(of("decoding", "seconds", codec=codec, swapping=swaps)) for swaps in (False, True))
        found.append(Figure(f"gpu_decode_slowdown_{codec}_pct", 100 * (swapping / alone - 1), f"%, {name}", "lower", 3.0))
        issue = median(of("decoding", "issue_seconds", codec=codec, swapping=True))
        found.append(Figure(f"gpu_copy_issue_{codec}_ms", 1e3 * issue, f"ms of the host per step, {name}", "lower"))
    found.append(Figure("gpu_decode_step_ms", 1e3 * median(of("decoding", "seconds", swapping=False)), f"ms, {name}", "lower"))
    return found


def _kernels(settings: Settings) -> Iterator[Row]:
    """How many bytes of the fused kernels differ from the reference's; a handful may, where a GPU fuses a product and a sum."""
    import torch

    from alise_engine.kv.fused_int8 import FusedInt8
    from alise_engine.kv.int8 import INT8, KeyLayout, LayerShape

    for dtype in (torch.bfloat16, torch.float32):
        shape = LayerShape(HEADS, BLOCK_SIZE, CHANNELS, dtype, KeyLayout.PER_TOKEN)
        layer = torch.randn(64, HEADS, BLOCK_SIZE, 2 * CHANNELS, device="cuda").to(dtype)
        index = torch.randperm(64, device="cuda")[:32]
        rows = [torch.zeros(32, INT8.row_bytes(shape), dtype=torch.uint8, device="cuda") for _ in range(2)]
        for codec, into in zip((INT8, FusedInt8()), rows, strict=True):
            codec.encode(layer, index, shape, 32 * BLOCK_SIZE, into)
        yield {"dtype": str(dtype), "apart": float((rows[0] != rows[1]).float().mean())}


def _copies(settings: Settings) -> Iterator[Row]:
    """Seconds of a save and a load, and of as many bytes to the host and back in one plain copy each."""
    import torch

    from alise_engine import compat
    from alise_engine.kv.int8 import INT8, RAW, Codec, KeyLayout, LayerShape
    from alise_engine.kv.slabs import Geometry
    from alise_engine.kv.staged import on_cuda
    from alise_engine.kv.work import AliseMetadata, Drop, Load, Save
    from alise_engine.kv.worker import WorkerSide

    blocks = TOKENS // BLOCK_SIZE
    shape = LayerShape(HEADS, BLOCK_SIZE, CHANNELS, torch.bfloat16, KeyLayout.PER_TOKEN)
    codecs: dict[str, Codec] = {RAW.name: RAW, INT8.name: compat.int8_codec()}
    row_bytes = {name: codec.row_bytes(shape) for name, codec in codecs.items()}
    geometry = Geometry.of(4 * LAYERS * blocks * row_bytes[RAW.name], row_bytes)
    side = WorkerSide(shape, row_bytes[RAW.name], geometry, codecs, on_cuda)
    cache = {
        f"l{number:02}": torch.randn(2 * blocks, HEADS, BLOCK_SIZE, 2 * CHANNELS, device="cuda").bfloat16() for number in range(LAYERS)
    }
    side.register(cache, 2 * blocks)
    ids = tuple(torch.randperm(2 * blocks)[:blocks].tolist())
    host, device = torch.empty(COPY_BYTES, dtype=torch.uint8, pin_memory=True), torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")

    def seconds(*work: Callable[[], Any]) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        for each in work:
            each()
        torch.cuda.synchronize()
        return time.perf_counter() - began

    for repetition in range(1 + (3 if settings.quick else 20)):
        rate = 2 * COPY_BYTES / seconds(partial(host.copy_, device, non_blocking=True), partial(device.copy_, host, non_blocking=True))
        for codec in codecs:
            save = AliseMetadata([Drop("r"), Save("r", ids, 0, TOKENS, codec, beside=True)])
            load = AliseMetadata(loads=[Load("r", ids, 0, ahead=True)])
            spent = seconds(partial(side.begin_step, save)) + seconds(partial(side.start_loads, load))
            # The first ones compile the kernels.
            if repetition:
                yield {"codec": codec, "seconds": spent, "pcie_seconds": 2 * LAYERS * blocks * row_bytes[codec] / rate}


def _exactness(settings: Settings) -> Iterator[Row]:
    from alise_engine import tiny_model
    from tests.engine.fuzz import EVERYTHING, EXACT, OPTIONS, Round, questions
    from tests.engine.harness import Engine

    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model.write_model(Path(folder))
        for name, options in OPTIONS.items():
            engine = Engine(model, options)
            asked = questions(engine, 1, 24)
            for seed in range(1 if settings.quick else 10):
                for mix in (EXACT, EVERYTHING):
                    outcome = Round(engine, asked, seed, mix).run(EXACT_TURNS)
                    counted = outcome.preemptions if mix is EXACT else 0
                    yield {
                        "engine": name, "seed": seed, "diverged": len(outcome.diverged), "stuck": outcome.stuck,
                        "leaked": abs(outcome.leaked_blocks) + outcome.leaked_bytes,
                        "preemptions": counted, "exact": outcome.exact_resumes if counted else 0,
                    }  # fmt: skip
            engine.close()


def _decoding(settings: Settings) -> Iterator[Row]:
    import torch

    yield from decoding(decoder(torch.cuda.mem_get_info()[0]), 60 if settings.quick else 600)


def decoding(model: Decoder, steps: int) -> Iterator[Row]:
    """Steps of a decoding batch, alone and while blocks that belong to nobody are saved and filled again beside every step."""
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
