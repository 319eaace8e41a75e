"""The decision of the autoscaler, as a plain function of what is observed and what was recommended before."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.v1.engine_control_pb2 import PredictedWork, StatusReport
from alise_operator.autoscaling import (
    FOLLOWS,
    MAXIMUM,
    MOST_START_SECONDS,
    PICKER_SILENT,
    SILENT,
    STARTING,
    ZERO,
    Decision,
    Memory,
    Pool,
    Rule,
    decide,
    pool_of,
    rule_of,
)
from alise_operator.predicted_work import Work, total, view_work
from tests.operator.builders import make_pod, make_report, make_spec

RULE = Rule(least=1, most=10, target_seconds=60.0, stabilization_seconds=300.0, idle_seconds=600.0)
TICK = 15.0
NOTHING = Memory()


def pool(replicas: int = 1, *, ready: int | None = None, load: float = 0.0, backlog: float = 0.0, silent: int = 0, held: int = 0) -> Pool:
    return Pool(replicas, replicas if ready is None else ready, Work(backlog, load), silent, held)


def decided(seen: Pool, rule: Rule = RULE) -> Decision:
    """The decision of an operator that has just started."""
    return decide(seen, rule, Memory(), 0.0)


def after(seen: Pool, *, seconds: float, rule: Rule = RULE, memory: Memory = NOTHING, start: float = 0.0) -> Decision:
    """The last decision when the pods look the same for some time, and the replicas are never set."""
    at, decision = start, decide(seen, rule, memory, start)
    while at < start + seconds and decision.replicas == seen.replicas:
        at += TICK
        decision = decide(seen, rule, decision.memory, at)
    return decision


# --- adding pods --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "replicas"),
    [
        pytest.param(pool(1), 1, id="nothing to do"),
        pytest.param(pool(1, load=0.9), 1, id="one busy pod"),
        pytest.param(pool(1, load=0.9, backlog=60), 2, id="a backlog of one pod beside it"),
        pytest.param(pool(1, load=3.2), 4, id="arrivals for more than three pods"),
        pytest.param(pool(1, backlog=600), 10, id="a long backlog"),
        pytest.param(pool(2, load=2.0), 2, id="exactly enough"),
        pytest.param(pool(4, load=4.3), 4, id="a load that is a little more than the pods serve"),
        pytest.param(pool(4, load=4.5), 5, id="a load that is more than a tenth above"),
        pytest.param(pool(1, load=1e300), 10, id="an absurd load"),
        pytest.param(pool(1, ready=0), 1, id="a pod that starts, without a figure"),
    ],
)
def test_pods_are_added_at_once_up_to_what_the_work_needs(seen: Pool, replicas: int) -> None:
    assert decided(seen).replicas == replicas


def test_while_pods_start_the_backlog_adds_none_and_arrivals_do() -> None:
    assert decided(pool(2, ready=1, load=1.4, backlog=10_000)).replicas == 2
    assert decided(pool(2, ready=1, load=2.4, backlog=10_000)).replicas == 3


def test_a_backlog_that_is_served_before_a_pod_has_started_adds_none() -> None:
    known = Memory(((0.0, 4),), 4, start_seconds=120.0)
    assert decide(pool(4, load=3.0, backlog=180), RULE, known, 15.0).replicas == 4
    assert decide(pool(4, load=3.0, backlog=240), RULE, known, 15.0).replicas == 5
    assert decide(pool(4, load=3.0, backlog=180), RULE, replace(known, start_seconds=0.0), 15.0).replicas == 6


def test_how_long_pods_take_to_start_is_measured() -> None:
    memory = NOTHING
    for at, seen in [(0.0, pool(2)), (15.0, pool(3, ready=2)), (60.0, pool(3, ready=2)), (105.0, pool(3))]:
        memory = decide(seen, RULE, memory, at).memory
    assert memory.start_seconds == 90.0


def test_a_pod_that_could_not_be_scheduled_for_hours_does_not_count_as_a_slow_start() -> None:
    waits = decide(pool(2, ready=1), RULE, replace(NOTHING, start_seconds=90.0), 0.0).memory
    assert decide(pool(2), RULE, waits, MOST_START_SECONDS + 1.0).memory.start_seconds == 90.0


def test_a_pod_that_is_removed_before_it_was_ready_does_not_count_as_started() -> None:
    rule = replace(RULE, stabilization_seconds=60.0)
    last = after(pool(2, ready=1, load=0.5), seconds=120, rule=rule)
    assert last.replicas == 1
    assert decide(pool(1, load=0.5), rule, last.memory, 135.0).memory.start_seconds == 0.0


def test_a_pod_that_a_user_removes_before_it_was_ready_does_not_count_as_started() -> None:
    waits = decide(pool(2, ready=1, load=0.9), RULE, NOTHING, 0.0).memory
    assert decide(pool(1, load=0.9), RULE, waits, 135.0).memory.start_seconds == 0.0


def test_the_cause_of_a_step_gives_its_figures() -> None:
    assert decided(pool(1, load=1.5, backlog=90)).cause == (
        "arriving requests keep 1.5 pods busy, and the backlog is 90 s of one pod, for a target of 60 s"
    )
    assert decided(pool(1)).cause == ""


# --- removing pods ------------------------------------------------------------------------------------------------------------------


def test_pods_are_removed_after_the_stabilization_time_and_no_sooner() -> None:
    assert after(pool(4, load=1.0), seconds=285).replicas == 4
    last = after(pool(4, load=1.0), seconds=300)
    assert (last.replicas, last.cause) == (2, "the predicted work has needed fewer pods for 300 s")


def test_a_peak_keeps_its_pods_for_the_stabilization_time() -> None:
    quiet = after(pool(4, load=1.0), seconds=285).memory
    peak = decide(pool(4, load=3.5), RULE, quiet, 290.0).memory
    assert after(pool(4, load=1.0), seconds=285, memory=peak, start=291.0).replicas == 4
    assert after(pool(4, load=1.0), seconds=315, memory=peak, start=291.0).replicas == 2


def test_pods_that_would_be_busier_than_nine_tenths_are_kept() -> None:
    assert after(pool(2, load=0.91), seconds=900).replicas == 2
    assert after(pool(2, load=0.89), seconds=900).replicas == 1


def test_a_restarted_operator_watches_for_the_whole_time_first() -> None:
    assert decided(pool(4)).replicas == 4


def test_no_pod_is_removed_while_the_work_of_a_ready_pod_is_not_known() -> None:
    last = after(pool(4, silent=1), seconds=3600)
    assert (last.replicas, last.reason) == (4, SILENT)


def test_the_time_without_figures_counts_as_if_all_pods_were_needed() -> None:
    unknown = after(pool(4, silent=1), seconds=300).memory
    assert after(pool(4), seconds=285, memory=unknown, start=315.0).replicas == 4


def test_without_stabilization_pods_are_removed_at_once() -> None:
    assert decided(pool(4, load=1.0), replace(RULE, stabilization_seconds=0.0)).replicas == 2


# --- numbers that others set --------------------------------------------------------------------------------------------------------


def test_a_number_set_by_hand_is_kept_for_the_stabilization_time() -> None:
    quiet = after(pool(1, load=0.5), seconds=900).memory
    assert after(pool(5, load=0.5), seconds=285, memory=quiet, start=915.0).replicas == 5
    assert after(pool(5, load=0.5), seconds=330, memory=quiet, start=915.0).replicas == 1


def test_too_few_pods_set_by_hand_are_raised_at_once() -> None:
    assert decide(pool(1, load=2.5), RULE, Memory(((0.0, 3),), 3), 15.0).replicas == 3


@pytest.mark.parametrize(
    ("seen", "replicas", "cause"),
    [
        pytest.param(pool(12, load=11.0), 10, "spec.autoscaling.maxReplicas is 10", id="more than the maximum"),
        pytest.param(pool(1, silent=1), 2, "spec.autoscaling.minReplicas is 2", id="fewer than the minimum"),
    ],
)
def test_a_number_outside_the_bounds_is_corrected_at_once(seen: Pool, replicas: int, cause: str) -> None:
    decision = decided(seen, replace(RULE, least=2))
    assert (decision.replicas, decision.cause) == (replicas, cause)


# --- to zero and back ---------------------------------------------------------------------------------------------------------------

ZERO_RULE = replace(RULE, least=0)


def test_the_last_pod_leaves_after_the_idle_time_and_no_sooner() -> None:
    assert after(pool(1), seconds=585, rule=ZERO_RULE).replicas == 1
    last = after(pool(1), seconds=600, rule=ZERO_RULE)
    assert (last.replicas, last.reason, last.cause) == (0, ZERO, "no request came for 600 s")


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(pool(1, load=0.001), id="a request a minute"),
        pytest.param(pool(1, backlog=0.001), id="a request that is nearly done"),
        pytest.param(pool(1, held=1), id="a held request"),
        pytest.param(pool(1, silent=1), id="an unknown number of requests"),
        pytest.param(pool(1, ready=0), id="a pod that starts"),
    ],
)
def test_a_pod_that_is_not_idle_stays(seen: Pool) -> None:
    assert after(seen, seconds=3600, rule=ZERO_RULE).replicas == 1


def test_with_a_minimum_of_one_an_idle_pod_stays() -> None:
    assert after(pool(1), seconds=3600).replicas == 1


def test_a_held_request_brings_a_pod_back() -> None:
    assert decided(pool(0), ZERO_RULE).replicas == 0
    woken = decided(pool(0, held=3), ZERO_RULE)
    assert (woken.replicas, woken.reason, woken.cause) == (1, STARTING, "3 requests wait for a pod")


def test_a_picker_that_does_not_answer_brings_a_pod_back_after_a_minute() -> None:
    unheard = replace(pool(0), held=None)
    first = after(unheard, seconds=45, rule=ZERO_RULE)
    assert (first.replicas, first.reason) == (0, PICKER_SILENT)
    woken = after(unheard, seconds=60, rule=ZERO_RULE)
    assert (woken.replicas, woken.cause) == (1, "the endpoint picker has not answered for 60 s, so requests may wait for a pod")


def test_a_picker_that_answers_in_between_starts_the_minute_anew() -> None:
    unheard = replace(pool(0), held=None)
    silent = after(unheard, seconds=45, rule=ZERO_RULE).memory
    heard = decide(pool(0), ZERO_RULE, silent, 50.0)
    assert heard.reason == ZERO
    assert after(unheard, seconds=45, rule=ZERO_RULE, memory=heard.memory, start=55.0).replicas == 0


# --- the reason ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        pytest.param(pool(1, load=0.5), FOLLOWS, id="enough pods"),
        pytest.param(pool(1, load=1.5), STARTING, id="more pods are requested"),
        pytest.param(pool(3, ready=2, load=1.5), STARTING, id="a pod starts"),
        pytest.param(pool(10, load=12.0), MAXIMUM, id="more work than the maximum serves"),
        pytest.param(pool(2, silent=1), SILENT, id="a pod without figures"),
    ],
)
def test_the_reason_says_what_decides(seen: Pool, reason: str) -> None:
    assert decided(seen).reason == reason


# --- properties ---------------------------------------------------------------------------------------------------------------------

WORKS = st.builds(Work, st.floats(0, 1e9), st.floats(0, 1e6))
RULES = st.builds(
    lambda least, more, target, stable, idle: Rule(least, max(1, least + more), target, stable, idle),
    st.integers(0, 20), st.integers(0, 20), st.floats(1, 3600), st.floats(0, 3600), st.floats(60, 3600),
)  # fmt: skip


@st.composite
def pools(draw: st.DrawFn, most: int = 40) -> Pool:
    replicas = draw(st.integers(0, most))
    ready = draw(st.integers(0, replicas))
    silent = draw(st.integers(0, ready))
    return Pool(replicas, ready, draw(WORKS) if ready > silent else Work(), silent, draw(st.none() | st.integers(0, 3)))


@given(st.lists(st.tuples(pools(), st.floats(1, 400)), min_size=1, max_size=15), RULES)
def test_whatever_is_observed_the_number_is_within_the_bounds(seen: list[tuple[Pool, float]], rule: Rule) -> None:
    memory, at = Memory(), 0.0
    for one, seconds in seen:
        at += seconds
        decision = decide(one, rule, memory, at)
        assert rule.least <= decision.replicas <= rule.most
        assert bool(decision.cause) == (decision.replicas != one.replicas)
        memory = decision.memory


@given(st.lists(st.tuples(pools(), st.floats(1, 400)), min_size=1, max_size=15), RULES)
def test_no_pod_within_the_bounds_is_removed_while_one_is_silent_or_within_the_time_after_it_was_needed(
    seen: list[tuple[Pool, float]], rule: Rule
) -> None:
    memory, at = Memory(), 0.0
    needed: list[tuple[float, float]] = []
    for one, seconds in seen:
        at += seconds
        decision = decide(one, rule, memory, at)
        needed.append((at, one.work.needed_pods(rule.target_seconds) if not one.starting else one.work.offered_load))
        if 0 < decision.replicas < min(one.replicas, rule.most):
            assert not one.silent
            assert all(pods <= decision.replicas + 1e-6 for since, pods in needed if at - since <= rule.stabilization_seconds)
        memory = decision.memory


@given(WORKS, st.integers(1, 40), RULES)
def test_work_that_does_not_change_moves_the_number_in_one_direction_only(work: Work, replicas: int, rule: Rule) -> None:
    memory, numbers = Memory(), [replicas]
    for tick in range(60):
        decision = decide(Pool(numbers[-1], numbers[-1], work if numbers[-1] else Work()), rule, memory, tick * 90.0)
        memory = decision.memory
        numbers.append(decision.replicas)
    start = min(rule.most, max(numbers[0], rule.least))
    moved = [start, *numbers[1:]]
    assert moved == sorted(moved) or moved == sorted(moved, reverse=True)
    assert len(set(numbers[-10:])) == 1


@given(st.floats(0, 9), st.integers(1, 40), st.floats(0, 1e6))
def test_pods_that_never_become_ready_start_no_cascade(load: float, ticks: int, growth: float) -> None:
    """The backlog grows for ever, because one pod serves and the others never come."""
    memory, replicas = Memory(), 1
    first = decide(Pool(1, 1, Work(0.0, load)), RULE, memory, 0.0)
    most = max(first.replicas, 2)
    for tick in range(ticks):
        backlog = growth * (tick + 1)
        decision = decide(Pool(max(replicas, 2), 1, Work(backlog, load)), RULE, memory, tick * TICK)
        memory, replicas = decision.memory, decision.replicas
        assert replicas <= most


def test_a_step_of_load_to_pods_that_start_slowly_does_not_overshoot() -> None:
    """One pod, then work for three and a half, and pods that take two minutes to start, in which the backlog grows to 300 s."""
    memory, replicas, ready_at, backlog, numbers = Memory(), 1, [0.0], 0.0, list[int]()
    for tick in range(200):
        at = tick * TICK
        ready = sum(begins <= at for begins in ready_at[:replicas])
        backlog = max(0.0, backlog + (3.5 - ready) * TICK)
        decision = decide(Pool(replicas, ready, Work(backlog, 3.5)), RULE, memory, at)
        memory, replicas = decision.memory, decision.replicas
        ready_at = [*ready_at[:replicas], *([at + 120.0] * (replicas - len(ready_at)))]
        numbers.append(replicas)
    steps = [later for sooner, later in itertools.pairwise([1, *numbers]) if later != sooner]
    assert steps == [5, 4]


@given(st.lists(WORKS, min_size=1, max_size=200))
def test_the_memory_does_not_grow_with_time(works: list[Work]) -> None:
    memory = Memory()
    for number, work in enumerate(works):
        memory = decide(Pool(3, 3, work), RULE, memory, number * TICK).memory
    assert len(memory.recommended) <= RULE.stabilization_seconds / TICK + 2


# --- what is observed ---------------------------------------------------------------------------------------------------------------


def test_the_pool_is_the_sum_over_ready_pods_that_report() -> None:
    def pod(name: str, work: Work | None, **changes: object) -> object:
        return make_pod(name=name, report=make_report(work=work), **changes)

    pods = [
        pod("a", Work(10.0, 0.5)),
        pod("b", Work(5.0, 0.25)),
        pod("c", None),
        pod("d", Work(99.0, 9.0), terminating=True),
        pod("e", Work(99.0, 9.0), ready=False),
        make_pod(name="f", report=None),
    ]
    assert pool_of(pods, 5) == Pool(5, 4, Work(15.0, 0.75), silent=2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("work", "seen"),
    [
        pytest.param({"backlog_seconds": 12.5, "offered_load": 0.5}, Work(12.5, 0.5), id="possible"),
        pytest.param({}, Work(0.0, 0.0), id="none"),
        pytest.param({"backlog_seconds": float("nan")}, None, id="not a number"),
        pytest.param({"offered_load": float("inf")}, None, id="infinite"),
        pytest.param({"backlog_seconds": -1.0}, None, id="negative"),
        pytest.param({"backlog_seconds": 1e308, "offered_load": 1e308}, Work(1e6, 1e6), id="absurd"),
    ],
)
def test_only_possible_figures_of_a_pod_are_believed(work: dict[str, float], seen: Work | None) -> None:
    assert view_work(StatusReport(work=PredictedWork(**work))) == seen


def test_a_pod_that_does_not_report_its_work_has_none() -> None:
    assert view_work(StatusReport()) is None


def test_the_sum_of_no_works_is_none_and_seconds_ahead_divide_into_pods() -> None:
    assert total([]).is_none
    work = Work(30.0, 1.5)
    assert work.seconds_ahead(60.0) / 60.0 == work.needed_pods(60.0) == 2.0


def test_the_rule_has_the_fields_of_the_spec() -> None:
    spec = make_spec(
        autoscaling={"minReplicas": 2, "maxReplicas": 7, "targetBacklogSeconds": 30, "scaleDown": {"stabilizationSeconds": 90}}
    )
    assert spec.autoscaling is not None
    assert rule_of(spec.autoscaling) == Rule(2, 7, 30, 90, 600)
