"""A decision as a whole: ranks, waits, host memory, and what changed since the last one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.core.admission_wait import NO_WAIT, Wait
from alise_scheduler.core.admit import AdmitLimits, Reason, admit, retry_after
from alise_scheduler.core.decide import decide
from alise_scheduler.core.job import Job
from alise_scheduler.core.memory import MemoryLimits, host_budget
from alise_scheduler.core.plan import Rank, coarse_ms
from alise_scheduler.core.rank import AgeingRule, Policy, PreemptionRule
from alise_scheduler.core.reports import EngineShape, Phase
from tests.scheduler.builders import SHAPE, make_job, make_snapshot, ranks_of


def test_an_empty_snapshot_gives_an_empty_plan_and_the_limits() -> None:
    decision = decide(make_snapshot([]), Policy())
    assert ranks_of(decision) == {}
    assert decision.load.live == 0
    assert decision.limits.preempt_levels == Policy().preemption.levels


def test_jobs_that_are_not_in_the_engine_are_counted_and_not_ranked() -> None:
    decision = decide(make_snapshot([make_job("coming", phase=Phase.ADMITTED), make_job("here")]), Policy())
    assert set(ranks_of(decision)) == {"here"}
    assert decision.load.live == 2


def test_a_request_around_the_middleware_is_counted_and_not_ranked() -> None:
    decision = decide(make_snapshot([make_job("request:x", rankable=False)]), Policy())
    assert ranks_of(decision) == {}
    assert decision.load.live == 1


def test_only_what_changed_is_sent() -> None:
    made = [make_job("a"), make_job("b", 500)]
    wanted = ranks_of(decide(make_snapshot(made), Policy()))
    again = decide(make_snapshot(made, sent={"a": wanted["a"], "b": Rank(99, 0)}), Policy())
    assert set(again.plan.ranks) == {"b"}


def test_limits_are_sent_once() -> None:
    first = decide(make_snapshot([]), Policy())
    assert first.plan.limits == first.limits
    assert decide(make_snapshot([]), Policy(), first.limits).plan.limits is None


def test_a_policy_that_does_not_preempt_has_no_preemption_levels_in_its_limits() -> None:
    assert decide(make_snapshot([]), Policy(preemption=PreemptionRule(0, 16))).limits.preempt_levels == 0


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(0.0, 0, id="now"),
        pytest.param(0.063, 0, id="below one unit"),
        pytest.param(0.070, 64, id="just above one unit"),
        pytest.param(0.100, 96, id="one and a half units"),
        pytest.param(1.0, 768, id="a second"),
        pytest.param(float("inf"), 1 << 33, id="for ever is the longest"),
        pytest.param(float("nan"), 0, id="no number is now"),
        pytest.param(-1.0, 0, id="negative is now"),
    ],
)
def test_waits_are_made_coarse(seconds: float, expected: int) -> None:
    assert coarse_ms(np.array([seconds]))[0] == expected


def test_running_jobs_do_not_wait_and_the_next_job_waits_for_them() -> None:
    made = [make_job("a", 100, Phase.RUNNING), make_job("b", 100, Phase.RUNNING), make_job("c", 100), make_job("d", 100)]
    waits = decide(make_snapshot(made), Policy(ageing=None)).waits_seconds
    assert waits[0] == waits[1] == 0
    assert 0 < waits[2] < waits[3]


def test_no_job_is_expected_to_wait_longer_than_until_promotion() -> None:
    made = [make_job(f"j{number}", 3000) for number in range(100)]
    aged = decide(make_snapshot(made), Policy(ageing=AgeingRule(1.0, 1.0, max_seconds=1.0))).waits_seconds
    # Base level at most 40, so 80 levels to the top at four a second.
    assert aged.max() <= 20.0
    assert decide(make_snapshot(made), Policy(ageing=None)).waits_seconds.max() > 20.0


def test_fewer_run_at_once_when_their_kv_does_not_fit() -> None:
    tight = EngineShape(max_num_seqs=64, max_model_len=4096, num_device_blocks=8, block_size=32)
    made = [make_job(f"j{number}", 1000, Phase.RUNNING, generated=500) for number in range(4)]
    assert decide(make_snapshot(made, tight), Policy()).load.slots == 1.0


def test_host_memory_is_planned_for_the_jobs_that_do_not_fit_the_slots() -> None:
    made = [make_job(f"j{tokens}", tokens, Phase.RUNNING, generated=generated) for tokens, generated in ((3000, 70), (1500, 50), (600, 30))]
    planned = decide(make_snapshot(made), Policy(memory=MemoryLimits("none"))).host_memory
    # Two slots. The longest job leaves the device, with its 10 prompt tokens and 70 more, at 1 KiB each.
    assert planned.host_bytes == 80 * 1024


@given(st.lists(st.integers(0, 4000), max_size=20), st.integers(0, 1 << 24), st.sampled_from(["auto", "int8", "none"]))
def test_the_host_budget_is_never_exceeded(generated: list[int], budget: int, quantization: str) -> None:
    made = [make_job(f"j{number}", 5000, Phase.RUNNING, generated=tokens) for number, tokens in enumerate(generated)]
    policy = Policy(memory=MemoryLimits(quantization, budget))
    planned = decide(make_snapshot(made), policy).host_memory
    assert planned.host_bytes <= planned.host_budget_bytes <= SHAPE.host_limit_bytes


@pytest.mark.parametrize(
    ("wanted", "engine", "expected"),
    [
        pytest.param(0, 100, 100, id="unset is all the engine has"),
        pytest.param(50, 100, 50, id="less is less"),
        pytest.param(500, 100, 100, id="never more than the engine has"),
        pytest.param(50, 0, 0, id="an engine without a store has none"),
    ],
)
def test_host_budget(wanted: int, engine: int, expected: int) -> None:
    assert host_budget(MemoryLimits(host_bytes=wanted), engine) == expected


@pytest.mark.parametrize(
    ("quantization", "ewt_ms", "fraction"),
    [
        pytest.param("auto", 2000, 0.5, id="auto goes by wait and pressure"),
        pytest.param("int8", 0, 0.0, id="int8 is from no wait on"),
        pytest.param("none", 2**40, 1.0, id="none is never"),
    ],
)
def test_the_codec_rule_is_sent_as_thresholds(quantization: str, ewt_ms: int, fraction: float) -> None:
    limits = decide(make_snapshot([]), Policy(memory=MemoryLimits(quantization))).limits
    assert (limits.int8_ewt_ms, limits.int8_host_fraction) == (ewt_ms, fraction)


@pytest.mark.parametrize(
    ("wait", "limits", "slo_ms", "reason"),
    [
        pytest.param(Wait(20.0, 20.0), AdmitLimits(), 0, None, id="without limits everything comes in"),
        pytest.param(Wait(20.0, 20.0), AdmitLimits(30.0), 0, None, id="a wait below the limit"),
        pytest.param(Wait(20.0, 2.0), AdmitLimits(10.0), 0, Reason.WAIT_TOO_LONG, id="a wait over the limit"),
        pytest.param(Wait(20.0, 20.0), AdmitLimits(), 500, Reason.OBJECTIVE, id="a first token that comes later than it asks for"),
        pytest.param(Wait(20.0, 0.1), AdmitLimits(), 500, None, id="a first token in time and a wait after it"),
        pytest.param(NO_WAIT, AdmitLimits(0.001), 1, None, id="no wait at all"),
    ],
)
def test_admission(wait: Wait, limits: AdmitLimits, slo_ms: int, reason: Reason | None) -> None:
    answer = admit(slo_ms, False, limits, lambda: wait)
    assert (answer.reason if answer else None) == reason


def test_a_draining_pod_takes_nothing() -> None:
    answer = admit(0, True, AdmitLimits(), lambda: NO_WAIT)
    assert answer is not None
    assert answer.reason is Reason.DRAINING


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(0.0, 1, id="at least a second"),
        pytest.param(1e9, 600, id="at most ten minutes"),
        pytest.param(float("nan"), 1, id="no number is a second"),
    ],
)
def test_retry_after(seconds: float, expected: int) -> None:
    assert retry_after(seconds) == expected


def test_a_thousand_jobs_are_decided_in_full() -> None:
    made: list[Job] = [make_job(f"j{number}", 10 + number % 700, waited=number / 50) for number in range(1000)]
    decision = decide(make_snapshot(made), Policy())
    assert len(ranks_of(decision)) == 1000
    assert np.isfinite(decision.waits_seconds).all()
