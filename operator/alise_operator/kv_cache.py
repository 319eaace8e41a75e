"""Whether KV memory is what requests wait for, by what pods reported over some minutes; pure.

A pod reports counters. What is kept of them are marks a minute apart, on the clock by which pods are polled: the figures of all pods of a
resource then change together, and the condition's message changes once a minute at most. The condition turns True above one share of time
and False below a lower one, so that it does not flap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from alise_operator.conditions import Condition
from alise_operator.spec import Spec

TYPE: Final = "KVCacheShort"
MARK_SECONDS: Final = 60.0
# Over how long a pod is judged, and for how long it must have reported before.
WINDOW_SECONDS: Final = 300.0
LEAST_SECONDS: Final = 120.0
# Share of time at the limit from which on KV memory is short, and below which it is so no longer.
SHORT_SHARE: Final = 0.20
RELIEVED_SHARE: Final = 0.10
# Types of 16 bits and more, as spec.engine.kvCacheDtype names them.
WIDE_DTYPES: Final = ("auto", "float16", "bfloat16")
_MAX_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class KvReport:
    """The KV cache of one pod, as its status has it. Seconds, tokens and preemptions are counted since the engine started."""

    limit_tokens: int
    used_tokens: int
    bits: int
    running: int
    full_seconds: float
    computed_tokens: int
    recomputed_tokens: int
    preemptions: int


@dataclass(frozen=True, slots=True)
class Mark:
    at_seconds: float
    boot_id: str
    report: KvReport


@dataclass(frozen=True, slots=True)
class Window:
    """What a pod's KV cache did between two marks."""

    seconds: float
    # Time in which a request had a slot and no room, or was preempted to make room.
    full_seconds: float
    computed_tokens: int
    recomputed_tokens: int
    preemptions: int
    limit_tokens: int
    bits: int
    # Sums over the marks.
    held_tokens: int
    running: int


def marked(before: tuple[Mark, ...], boot_id: str, report: KvReport | None, at_seconds: float) -> tuple[Mark, ...]:
    """Returns the marks with this report among them when it is the first of its minute. Another engine process starts anew."""
    if report is None:
        return ()
    kept = before if before and before[-1].boot_id == boot_id else ()
    if kept and kept[-1].at_seconds // MARK_SECONDS == at_seconds // MARK_SECONDS:
        return kept
    marks = (*kept, Mark(at_seconds, boot_id, report))
    while len(marks) > 2 and at_seconds - marks[1].at_seconds >= WINDOW_SECONDS:
        marks = marks[1:]
    return marks


def window(marks: tuple[Mark, ...]) -> Window | None:
    """Returns what happened between the first mark and the last, None while there is too little between them."""
    if len(marks) < 2 or marks[-1].at_seconds - marks[0].at_seconds < LEAST_SECONDS:
        return None
    first, last = marks[0].report, marks[-1].report
    seconds = marks[-1].at_seconds - marks[0].at_seconds
    return Window(
        seconds=seconds,
        # A pod's clock is not ours, and what it reports need not be true.
        full_seconds=min(max(0.0, last.full_seconds - first.full_seconds), seconds),
        computed_tokens=max(0, last.computed_tokens - first.computed_tokens),
        recomputed_tokens=max(0, last.recomputed_tokens - first.recomputed_tokens),
        preemptions=max(0, last.preemptions - first.preemptions),
        limit_tokens=last.limit_tokens,
        bits=min(last.bits, _MAX_BITS),
        held_tokens=sum(mark.report.used_tokens for mark in marks),
        running=sum(mark.report.running for mark in marks),
    )


def kv_cache_short(
    spec: Spec | None, pods: Sequence[Window | None], before: Mapping[str, Any] | None, silence: str = "no pod reports its KV cache"
) -> Condition:
    """Returns the condition.

    `pods`: those that report their KV cache, None for each that has done so too shortly; `silence`: why there is none; `before`: as it was.
    """
    if not pods:
        return Condition(TYPE, "Unknown", "NoReports", silence)
    windows = [one for one in pods if one is not None]
    if not windows:
        if before is not None and before["status"] != "Unknown":
            # The operator or the pods have just started: what was found stands until they have been looked at for long enough.
            return Condition(TYPE, before["status"], before["reason"], before["message"])
        said = f"judged when a pod has reported its KV cache for {LEAST_SECONDS / 60:.0f} minutes"
        return Condition(TYPE, "Unknown", "Measuring", said)
    share = sum(one.full_seconds for one in windows) / sum(one.seconds for one in windows)
    least = RELIEVED_SHARE if before is not None and before["status"] == "True" else SHORT_SHARE
    if share < least:
        return Condition(TYPE, "False", "EnoughRoom", f"requests waited for KV memory in less than {SHORT_SHARE:.0%} of the last minutes")
    return Condition(TYPE, "True", "KVCacheFull", "; ".join([*_figures(windows, share), _advice(spec, windows)]))


def is_news(condition: Condition, before: Mapping[str, Any] | None) -> bool:
    """Whether an event says so: KV memory is short now, or is so no longer."""
    was_short = before is not None and before["status"] == "True"
    return condition.status != "Unknown" and was_short != (condition.status == "True")


def _figures(windows: Sequence[Window], share: float) -> list[str]:
    minutes = sum(one.seconds for one in windows) / len(windows) / 60
    recomputed, computed = sum(one.recomputed_tokens for one in windows), sum(one.computed_tokens for one in windows)
    preemptions = sum(one.preemptions for one in windows)
    said = [f"for {share:.0%} of the last {minutes:.0f} minutes requests had a slot and no KV memory"]
    if preemptions:
        said.append(f"{_about(preemptions / minutes)} running requests per minute were preempted to make room")
    if recomputed:
        of_all = recomputed / max(computed, recomputed)
        said.append(f"{_about(recomputed / minutes)} tokens per minute were computed again, {of_all:.0%} of all")
    else:
        said.append("no tokens were computed again")
    return said


def _advice(spec: Spec | None, windows: Sequence[Window]) -> str:
    """Returns the room that there is and the way to more."""
    on_cpu = spec is not None and spec.engine.device == "cpu"
    otherwise = "raise VLLM_CPU_KVCACHE_SPACE in spec.engine.env or spec.replicas"
    if not on_cpu:
        otherwise = "raise --gpu-memory-utilization in spec.engine.args, spec.engine.tensorParallelSize or spec.replicas"
    least = min(windows, key=lambda one: one.limit_tokens)
    room = f"a pod has room for {least.limit_tokens:,} tokens"
    if least.bits <= 8:
        return f"{room} of {least.bits} bits; {otherwise}"
    if spec is not None and spec.engine.kv_cache_dtype not in WIDE_DTYPES:
        return f"{room}; pods with spec.engine.kvCacheDtype {spec.engine.kv_cache_dtype} have not replaced all others yet"
    larger = least.limit_tokens * least.bits // 8
    requests, tokens = sum(one.running for one in windows), sum(one.held_tokens for one in windows)
    more = ""
    if requests and tokens:
        mean = tokens / requests
        added = _about((larger - least.limit_tokens) / mean)
        more = f", about {added} more requests of {_about(mean)} tokens, which is what they hold on average"
    needs = " (on CPUs with AVX-512 or AMX)" if on_cpu else ""
    return f"{room}, with 8-bit KV for {larger:,}{more}; set spec.engine.kvCacheDtype: fp8{needs}, or {otherwise}"


def _about(number: float) -> str:
    """The number with two digits that count."""
    return f"{float(f'{number:.1e}'):,.0f}" if number >= 1 else "1"
