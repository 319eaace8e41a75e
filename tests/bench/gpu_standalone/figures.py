"""What the rows of the parts come to: every figure from the rows alone. A part without rows has no figures.

`__main__.py` and `tests/bench/gpu.py` call it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from tests.bench.gpu_standalone.decoding import ALONE, MODES, SLICE_BYTES
from tests.bench.gpu_standalone.parts import COPIES, DECODING, KERNELS
from tests.bench.gpu_standalone.rows import FAILURE
from tests.bench.harness import Figure, Row, median, percentile, verdict

CODECS: Final = ("raw", "int8")
# Figures that say whether it is right. One that misses its goal is a failure, however quick the rest is.
MUST_HOLD: Final = ("gpu_kernel_levels_apart", "gpu_kernel_read_apart_units", "gpu_kernel_spilled", "gpu_restored_wrong_blocks")
# Two grids that both cover the numbers are a level apart where a quotient lies between two levels.
_ONE_LEVEL: Final = 1.01
_GB: Final = 1e9


def figures(rows: Sequence[Row]) -> list[Figure]:
    failed = Figure("gpu_failed_measurements", float(sum(row["kind"] == FAILURE for row in rows)), "measurements", "lower", 0)
    return [*_kernels(rows), *_copies(rows), *_decoding(rows), failed]


def wrong(found: Sequence[Figure]) -> list[Figure]:
    return [figure for figure in found if figure.name in MUST_HOLD and verdict(figure) == "missed"]


def _chosen(rows: Sequence[Row], part: str, kind: str, **where: Any) -> list[Row]:
    of_part = [row for row in rows if row["part"] == part and row["kind"] == kind]
    return [row for row in of_part if all(row[key] == value for key, value in where.items())]


def _rate(rows: Sequence[Row], column: str = "bytes") -> float:
    return median(float(row[column]) / float(row["seconds"]) for row in rows)


def _kernels(rows: Sequence[Row]) -> Iterator[Figure]:
    cases = _chosen(rows, KERNELS, "case")
    if cases:
        apart = max(100.0 * row["bytes"] / row["of_bytes"] for row in cases)
        yield Figure("gpu_kernel_cases", float(len(cases)), "shapes and dtypes", "higher")
        yield Figure("gpu_kernel_bytes_apart_pct", apart, "% of a row's bytes, worst case", "lower")
        yield Figure("gpu_kernel_levels_apart", max(row["levels"] for row in cases), "levels, worst number", "lower", _ONE_LEVEL)
        yield Figure("gpu_kernel_read_apart_units", max(row["units"] for row in cases), "units of the type's precision", "lower", 1.0)
        yield Figure("gpu_kernel_spilled", float(sum(row["spilled"] for row in cases)), "numbers of other blocks", "lower", 0)
    for row in _chosen(rows, KERNELS, "ceiling"):
        yield Figure("gpu_device_copy_gb_s", row["bytes_moved"] / row["seconds"] / _GB, "GB/s, read and written", "higher")
    fused = _chosen(rows, KERNELS, "rate", codec="fused")
    for row in fused:
        name = f"gpu_int8_{row['way']}_{row['shape']}"
        yield Figure(f"{name}_gb_s", row["bytes_moved"] / row["seconds"] / _GB, "GB/s, read and written", "higher")
        for other in _chosen(rows, KERNELS, "rate", codec="torch", way=row["way"], shape=row["shape"]):
            yield Figure(f"{name}_times_torch", other["seconds"] / row["seconds"], "times the reference's speed", "higher")


def _copies(rows: Sequence[Row]) -> Iterator[Figure]:
    plain = {way: _rate(found) for way in ("save", "restore") if (found := _chosen(rows, COPIES, "plain", way=way))}
    for way, name in (("save", "to_host"), ("restore", "from_host")):
        if way in plain:
            yield Figure(f"gpu_link_{name}_gb_s", plain[way] / _GB, "GB/s, one pinned copy", "higher")
    measured = _chosen(rows, COPIES, "copy")
    longest = max((row["tokens"] for row in measured), default=0)
    for tokens in sorted({row["tokens"] for row in measured}, reverse=True):
        for codec in CODECS:
            for beside in (True, False) if tokens == longest else (True,):
                of_ways = {way: _chosen(measured, COPIES, "copy", way=way, codec=codec, tokens=tokens, beside=beside) for way in plain}
                suffix = f"{codec}_{tokens}" + ("" if beside else "_in_step")
                yield from _of_copy(of_ways, plain, suffix)
    for way in plain:
        # The worst of the firsts is the one that compiled.
        firsts = _chosen(rows, COPIES, "first", way=way, codec="int8")
        if firsts:
            yield Figure(f"gpu_first_{way}_int8_ms", 1e3 * max(row["seconds"] for row in firsts), "ms, kernels compiled or read", "lower")
    restored = _chosen(rows, COPIES, "restored")
    if restored:
        yield Figure("gpu_restored_wrong_blocks", float(sum(row["wrong"] for row in restored)), "blocks of a layer", "lower", 0)


def _of_copy(found: dict[str, list[Row]], plain: dict[str, float], suffix: str) -> Iterator[Figure]:
    for way, measured in found.items():
        if measured:
            yield Figure(f"gpu_{way}_{suffix}_pcie_fraction", _rate(measured) / plain[way], "of a plain pinned copy", "higher")
            yield Figure(f"gpu_{way}_{suffix}_ms", 1e3 * median(row["seconds"] for row in measured), "ms", "lower")
    if all(found.get(way) for way in ("save", "restore")):
        carried = {way: median(row["bytes"] for row in found[way]) for way in found}
        spent = sum(median(row["seconds"] for row in found[way]) for way in found)
        share = sum(carried[way] / plain[way] for way in found) / spent
        yield Figure(f"gpu_round_trip_{suffix}_pcie_fraction", share, "of the PCIe copy rate", "higher", 0.8)


def _decoding(rows: Sequence[Row]) -> Iterator[Figure]:
    steps = _chosen(rows, DECODING, "step")
    if not steps:
        return
    made = _chosen(rows, DECODING, "decoder")[0]
    model = made["model"] + (", CUDA graph" if made["graph"] else ", no CUDA graph")
    alone = [row["seconds"] for row in steps if row["mode"] == ALONE]
    if alone:
        yield Figure("gpu_plain_step_ms", 1e3 * median(alone), f"ms, {model}", "lower")
        yield Figure("gpu_plain_step_p99_ms", 1e3 * percentile(alone, 0.99), f"ms, {model}", "lower")
    smallest = min(row["raw_bytes"] for row in steps)
    for size in sorted({row["raw_bytes"] for row in steps}):
        for codec in CODECS:
            # Those of the same turns: the device's clock is another one later.
            alone = [row["seconds"] for row in steps if row["mode"] == ALONE and row["codec"] == codec]
            for mode in MODES:
                beside = [row for row in steps if (row["mode"], row["codec"], row["raw_bytes"]) == (mode, codec, size)]
                if mode == ALONE or not beside or not alone:
                    continue
                # The goal is for a slice as the engine cuts it; what is larger shows how far it goes.
                name, goal = f"{codec}_{mode}_{_mebibytes(size)}", 3.0 if size == smallest else None
                for share, which in ((0.5, ""), (0.99, "_p99")):
                    slower = 100 * (percentile([row["seconds"] for row in beside], share) / percentile(alone, share) - 1)
                    yield Figure(f"gpu_plain_slowdown_{name}{which}_pct", slower, "% of a step", "lower", None if which else goal)
                if mode == "both":
                    issued = 1e3 * median(row["issue_seconds"] for row in beside)
                    yield Figure(f"gpu_plain_issue_{name}_ms", issued, "ms of the host per step", "lower")


def _mebibytes(size: int) -> str:
    return f"{size >> 20}mib" if size in SLICE_BYTES else "dry"
