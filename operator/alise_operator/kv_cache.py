"""The condition KVCacheShort: whether requests wait for KV memory, judged by what pods reported over the last minutes.

Pure: polls.py keeps the marks of each pod, poller.py asks for their window, and status.py asks for the condition. A pod reports counters,
of which one mark a minute is kept. All pods are marked by the clock of the polls, so their figures change together and the message changes
at most once a minute. The condition turns True above one share of time and False below a lower share, so it does not flap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from alise_operator.conditions import Condition
from alise_operator.spec import Spec

TYPE: Final = "KVCacheShort"
MARK_SECONDS: Final = 60.0
# The period over which a pod is judged, and the shortest period that is enough.
WINDOW_SECONDS: Final = 300.0
LEAST_SECONDS: Final = 120.0
# Share of time at the limit above which KV memory becomes short, and below which it is no longer short.
SHORT_SHARE: Final = 0.20
RELIEVED_SHARE: Final = 0.10
# Values of spec.engine.kvCacheDtype with 16 bits or more.
WIDE_DTYPES: Final = ("auto", "float16", "bfloat16")
_MAX_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class KvReport:
    """The KV cache of one pod, from its status report. Seconds, tokens and preemptions are totals since the engine started."""

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
    # Time during which a request had a slot but no KV memory, or was preempted to free some.
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
    """Returns the marks, with this report added if it is the first of its minute. A new engine process starts without marks."""
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
    """Returns what happened between the first mark and the last; None while they are too close to judge."""
    if len(marks) < 2 or marks[-1].at_seconds - marks[0].at_seconds < LEAST_SECONDS:
        return None
    first, last = marks[0].report, marks[-1].report
    seconds = marks[-1].at_seconds - marks[0].at_seconds
    return Window(
        seconds=seconds,
        # A pod has its own clock, and its report may be wrong.
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

    `pods` has an entry for each pod that reports its KV cache, None if it has reported for too short a time. `silence` says why there is
    no such pod. `before` is the previous condition.
    """
    if not pods:
        return Condition(TYPE, "Unknown", "NoReports", silence)
    windows = [one for one in pods if one is not None]
    if not windows:
        if before is not None and before["status"] != "Unknown":
            # The operator or the pods have just started: the previous result stands until there are enough reports.
            return Condition(TYPE, before["status"], before["reason"], before["message"])
        wait = f"the KV cache is judged once a pod has reported its use for {LEAST_SECONDS / 60:.0f} minutes"
        return Condition(TYPE, "Unknown", "Measuring", wait)
    share = sum(one.full_seconds for one in windows) / sum(one.seconds for one in windows)
    least = RELIEVED_SHARE if before is not None and before["status"] == "True" else SHORT_SHARE
    if share < least:
        return Condition(
            TYPE, "False", "EnoughRoom", f"requests waited for KV memory during less than {SHORT_SHARE:.0%} of the last minutes"
        )
    return Condition(TYPE, "True", "KVCacheFull", "; ".join([*_figures(windows, share), _advice(spec, windows)]))


def is_news(condition: Condition, before: Mapping[str, Any] | None) -> bool:
    """Returns whether the change is worth an event: KV memory has become short, or is no longer short."""
    was_short = before is not None and before["status"] == "True"
    return condition.status != "Unknown" and was_short != (condition.status == "True")


def _figures(windows: Sequence[Window], share: float) -> list[str]:
    minutes = sum(one.seconds for one in windows) / len(windows) / 60
    recomputed, computed = sum(one.recomputed_tokens for one in windows), sum(one.computed_tokens for one in windows)
    preemptions = sum(one.preemptions for one in windows)
    figures = [f"for {share:.0%} of the last {minutes:.0f} minutes, requests had a slot but no KV memory"]
    if preemptions:
        figures.append(f"{_about(preemptions / minutes)} running requests per minute were preempted to free KV memory")
    if recomputed:
        of_all = recomputed / max(computed, recomputed)
        figures.append(f"{_about(recomputed / minutes)} tokens per minute were recomputed, {of_all:.0%} of all")
    else:
        figures.append("no tokens were recomputed")
    return figures


def _advice(spec: Spec | None, windows: Sequence[Window]) -> str:
    """Returns how much the KV cache holds, and how to enlarge it."""
    on_cpu = spec is not None and spec.engine.device == "cpu"
    otherwise = "raise VLLM_CPU_KVCACHE_SPACE in spec.engine.env or spec.replicas"
    if not on_cpu:
        otherwise = "raise --gpu-memory-utilization in spec.engine.args, spec.engine.tensorParallelSize or spec.replicas"
    least = min(windows, key=lambda one: one.limit_tokens)
    room = f"the KV cache of a pod holds {least.limit_tokens:,} tokens"
    if least.bits <= 8:
        return f"{room} of {least.bits} bits; {otherwise}"
    if spec is not None and spec.engine.kv_cache_dtype not in WIDE_DTYPES:
        return f"{room}; pods with spec.engine.kvCacheDtype {spec.engine.kv_cache_dtype} have not replaced all older pods yet"
    larger = least.limit_tokens * least.bits // 8
    requests, tokens = sum(one.running for one in windows), sum(one.held_tokens for one in windows)
    more = ""
    if requests and tokens:
        mean = tokens / requests
        added = _about((larger - least.limit_tokens) / mean)
        more = f", enough for about {added} more requests of {_about(mean)} tokens, the present average"
    needs = " (on CPUs with AVX-512 or AMX)" if on_cpu else ""
    return f"{room}, and with 8-bit values {larger:,}{more}; set spec.engine.kvCacheDtype: fp8{needs}, or {otherwise}"


def _about(number: float) -> str:
    """Returns the number with two significant digits."""
    return f"{float(f'{number:.1e}'):,.0f}" if number >= 1 else "1"
