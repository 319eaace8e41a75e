"""Whether KV memory is short, by what pods reported."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from alise_operator.conditions import Condition
from alise_operator.kv_cache import KvReport, Mark, Window, is_news, kv_cache_short, marked, window
from tests.operator.builders import make_spec

# Five minutes of Qwen3-32B on one H100.
FULL = Window(
    seconds=300.0,
    full_seconds=129.0,
    computed_tokens=600_000,
    recomputed_tokens=48_000,
    preemptions=62,
    limit_tokens=30_720,
    bits=16,
    held_tokens=6 * 30_000,
    running=6 * 30,
)
CUDA = make_spec(engine={"device": "cuda"})
SHORT = {"status": "True", "reason": "KVCacheFull", "message": "as it was"}
ROOMY = {"status": "False", "reason": "EnoughRoom", "message": "as it was"}
UNKNOWN = {"status": "Unknown", "reason": "Measuring", "message": "as it was"}


def full_for(share: float, **changes: Any) -> Window:
    return replace(FULL, full_seconds=share * FULL.seconds, **changes)


def report(full_seconds: float = 0.0, **changes: Any) -> KvReport:
    fields: dict[str, Any] = dict.fromkeys(("used_tokens", "running", "computed_tokens", "recomputed_tokens", "preemptions"), 0)
    return KvReport(**(fields | {"limit_tokens": 1000, "bits": 16, "full_seconds": full_seconds} | changes))


def marks(*reports: KvReport, boot: str = "boot", every: float = 60.0) -> tuple[Mark, ...]:
    """One poll each this many seconds."""
    kept: tuple[Mark, ...] = ()
    for turn, one in enumerate(reports):
        kept = marked(kept, boot, one, turn * every)
    return kept


@pytest.mark.parametrize(
    ("share", "before", "status"),
    [
        pytest.param(0.05, None, "False", id="seldom"),
        pytest.param(0.19, None, "False", id="a little less than what makes it short"),
        pytest.param(0.20, None, "True", id="as much as makes it short"),
        pytest.param(0.19, ROOMY, "False", id="not yet short"),
        pytest.param(0.11, SHORT, "True", id="still short"),
        pytest.param(0.09, SHORT, "False", id="short no longer"),
        pytest.param(0.15, UNKNOWN, "False", id="between both marks, and not known before"),
    ],
)
def test_it_is_short_above_one_share_of_time_and_roomy_below_a_lower_one(share: float, before: dict[str, Any] | None, status: str) -> None:
    assert kv_cache_short(CUDA, [full_for(share)], before).status == status


def test_all_pods_count_together() -> None:
    assert kv_cache_short(CUDA, [full_for(0.5), full_for(0.0), full_for(0.0)], None).status == "False"
    assert kv_cache_short(CUDA, [full_for(0.5), full_for(0.2), None], None).status == "True"


def test_the_message_has_the_figures_and_the_field_to_set() -> None:
    assert kv_cache_short(CUDA, [FULL], None).message == (
        "for 43% of the last 5 minutes, requests had a slot but no KV memory; 12 running requests per minute were preempted to free KV "
        "memory; 9,600 tokens per minute were recomputed, 8% of all; the KV cache of a pod holds 30,720 tokens, and with 8-bit values "
        "61,440, enough for about 31 more requests of 1,000 tokens, the present average; set spec.engine.kvCacheDtype: fp8, or raise "
        "--gpu-memory-utilization in spec.engine.args, spec.engine.tensorParallelSize or spec.replicas"
    )


@pytest.mark.parametrize(
    ("spec", "changes", "said"),
    [
        pytest.param(
            {"engine": {"device": "cuda", "kvCacheDtype": "fp8"}},
            {"bits": 8},
            "holds 30,720 tokens of 8 bits; raise --gpu-memory-utilization in spec.engine.args, spec.engine.tensorParallelSize or "
            "spec.replicas",
            id="8-bit KV already",
        ),
        pytest.param(
            {"engine": {"device": "cuda", "kvCacheDtype": "fp8"}},
            {},
            "pods with spec.engine.kvCacheDtype fp8 have not replaced all older pods yet",
            id="8-bit KV is being rolled out",
        ),
        pytest.param(
            {"engine": {"device": "cpu"}},
            {"bits": 32},
            "and with 8-bit values 122,880, enough for about 92 more requests of 1,000 tokens, the present average; set "
            "spec.engine.kvCacheDtype: fp8 (on CPUs with AVX-512 or AMX), or raise VLLM_CPU_KVCACHE_SPACE in spec.engine.env or "
            "spec.replicas",
            id="a CPU with KV of 32 bits",
        ),
        pytest.param({}, {"recomputed_tokens": 0}, "no tokens were recomputed", id="everything came back from the host"),
        pytest.param({}, {"running": 0, "held_tokens": 0}, "and with 8-bit values 61,440; set", id="no request ran at a mark"),
    ],
)
def test_the_way_out_is_one_that_there_is(spec: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    assert said in kv_cache_short(make_spec(**spec), [full_for(0.5, **changes)], None).message


def test_without_a_spec_that_can_be_read_it_still_says_so() -> None:
    assert kv_cache_short(None, [FULL], None).status == "True"


def test_it_is_unknown_while_no_pod_reports() -> None:
    found = kv_cache_short(CUDA, [], SHORT)
    assert (found.status, found.reason) == ("Unknown", "NoReports")


@pytest.mark.parametrize(
    ("before", "said"),
    [
        pytest.param(None, ("Unknown", "Measuring"), id="nothing was known"),
        pytest.param(SHORT, ("True", "KVCacheFull"), id="it was short"),
        pytest.param(ROOMY, ("False", "EnoughRoom"), id="it was not"),
    ],
)
def test_until_pods_have_reported_for_two_minutes_it_is_what_it_was(before: dict[str, Any] | None, said: tuple[str, str]) -> None:
    found = kv_cache_short(CUDA, [None, None], before)
    assert (found.status, found.reason) == said


@pytest.mark.parametrize(
    ("status", "before", "news"),
    [
        pytest.param("True", None, True, id="short from the beginning"),
        pytest.param("True", ROOMY, True, id="short now"),
        pytest.param("True", SHORT, False, id="short as before"),
        pytest.param("False", SHORT, True, id="short no longer"),
        pytest.param("False", UNKNOWN, False, id="never short"),
        pytest.param("Unknown", SHORT, False, id="not known any more"),
    ],
)
def test_only_shortness_and_its_end_are_events(status: Any, before: dict[str, Any] | None, news: bool) -> None:
    assert is_news(Condition("KVCacheShort", status, "Reason", "words"), before) is news


def test_a_window_is_what_was_added_between_its_marks() -> None:
    reports = [report(10.0 * turn, used_tokens=500, running=5, computed_tokens=100 * turn, preemptions=turn) for turn in range(4)]
    found = window(marks(*reports))
    assert found is not None
    assert (found.seconds, found.full_seconds, found.computed_tokens, found.preemptions) == (180.0, 30.0, 300, 3)
    assert (found.held_tokens, found.running) == (2000, 20)


def test_there_is_no_window_before_two_minutes() -> None:
    assert window(marks(report(), report())) is None
    assert window(marks(report(), report(), report())) is not None


def test_marks_are_a_minute_apart_and_reach_five_minutes_back() -> None:
    kept = marks(*[report() for _ in range(80)], every=15.0)
    assert len(kept) == 6
    assert {later.at_seconds - earlier.at_seconds for earlier, later in pairwise(kept)} == {60.0}


def test_another_engine_process_is_judged_anew() -> None:
    kept = marked(marks(report(9.0), report(50.0)), "another", report(1.0), 120.0)
    assert [mark.report.full_seconds for mark in kept] == [1.0]


def test_a_pod_that_reports_no_kv_cache_any_more_is_not_judged() -> None:
    assert marked(marks(report()), "boot", None, 60.0) == ()


def test_counters_that_no_clock_could_have_counted_are_bounded() -> None:
    back = window(marks(report(900.0, computed_tokens=9), report(0.0), report(0.0)))
    ahead = window(marks(report(0.0), report(0.0), report(1e12, bits=2**32 - 1, limit_tokens=2**64 - 1)))
    assert back is not None
    assert ahead is not None
    assert (back.full_seconds, back.computed_tokens, ahead.full_seconds) == (0.0, 0, 120.0)
    assert len(kv_cache_short(CUDA, [ahead], None).message) < 700
