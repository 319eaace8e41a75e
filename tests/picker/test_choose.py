"""Which replica gets a request: the decision in plain functions."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.names import MAX_LEVEL
from alise_picker.choose import (
    HOME_SECONDS,
    IN_TRANSIT_SECONDS,
    LOST_SECONDS,
    MAX_RETRY_SECONDS,
    STALE_SECONDS,
    Chosen,
    Decision,
    Endpoint,
    LevelLoad,
    Load,
    NoEndpoint,
    Reason,
    Request,
    Sent,
    Shed,
    choose,
    needs_length,
    turn_seconds,
    unreported,
)

NOW = 1000.0


def make_endpoint(address: str, *rows: tuple[int, float, float], sent: tuple[Sent, ...] = (), **load: Any) -> Endpoint:
    """A replica with rows of (level, samples, seconds), two slots and a report of just now."""
    values: dict[str, Any] = {"at": NOW, "slots": 2.0, "levels": tuple(LevelLoad(*row) for row in rows), **load}
    return Endpoint(address, Load(**values), sent)


def chosen(decision: Decision) -> str:
    assert isinstance(decision, Chosen)
    return decision.address


@pytest.mark.parametrize(
    ("endpoints", "request_", "address"),
    [
        pytest.param([make_endpoint("a", (0, 4, 40)), make_endpoint("b")], Request(), "b", id="the idle one"),
        pytest.param([make_endpoint("a", (0, 4, 40)), make_endpoint("b", (0, 4, 20))], Request(), "b", id="the shorter queue"),
        pytest.param(
            [make_endpoint("a", (8, 9, 900)), make_endpoint("b", (-8, 3, 6))],
            Request(level=0),
            "a",
            id="work of worse ranks does not count",
        ),
        pytest.param(
            [make_endpoint("a", (8, 9, 900)), make_endpoint("b", (-8, 3, 6))], Request(level=8), "b", id="for a long request it does"
        ),
        pytest.param([make_endpoint("a", (0, 1, 50)), make_endpoint("b", (0, 1, 5))], Request(), "b", id="both have a slot: less work"),
        pytest.param([make_endpoint("a", (0, 2, 9)), make_endpoint("b", (0, 1, 90))], Request(), "b", id="a free slot before less work"),
        pytest.param([make_endpoint("a", draining=True), make_endpoint("b", (0, 9, 90))], Request(), "b", id="not one that drains"),
        pytest.param(
            [make_endpoint("a", connected=False), make_endpoint("b", (0, 9, 90))], Request(), "b", id="not one without its engine"
        ),
        pytest.param([make_endpoint("a", at=NOW - 9), make_endpoint("b", (0, 9, 90))], Request(), "b", id="not one with old figures"),
        pytest.param([make_endpoint("a", (0, 3, 3)), make_endpoint("b")], Request(home="a"), "a", id="the conversation's, slightly slower"),
        pytest.param([make_endpoint("a", (0, 9, 90)), make_endpoint("b")], Request(home="a"), "b", id="not if it is clearly slower"),
        pytest.param([make_endpoint("a", draining=True), make_endpoint("b")], Request(home="a"), "b", id="the conversation's drains"),
        pytest.param([make_endpoint("a", (0, 1, 1)), make_endpoint("b")], Request(samples=2), "b", id="all its samples need a slot"),
    ],
)
def test_a_request_goes_to(endpoints: list[Endpoint], request_: Request, address: str) -> None:
    assert chosen(choose(endpoints, request_, NOW, 0)) == address


def test_without_fresh_figures_requests_go_round_robin() -> None:
    endpoints = [Endpoint("a"), make_endpoint("b", at=NOW - STALE_SECONDS - 1), Endpoint("c")]
    decisions = [choose(endpoints, Request(), NOW, turn) for turn in range(4)]
    assert decisions == [Chosen(address, Reason.ROUND_ROBIN) for address in ("a", "b", "c", "a")]


@pytest.mark.parametrize("endpoints", [pytest.param([], id="none"), pytest.param([make_endpoint("a", draining=True)], id="all drain")])
def test_without_a_replica_there_is_no_endpoint(endpoints: list[Endpoint]) -> None:
    assert choose(endpoints, Request(), NOW, 0) == NoEndpoint()


def test_a_request_that_all_would_refuse_is_shed_until_the_first_would_take_it() -> None:
    endpoints = [make_endpoint("a", (0, 4, 40), max_wait_seconds=5.0), make_endpoint("b", (0, 4, 32), max_wait_seconds=5.0)]
    assert choose(endpoints, Request(), NOW, 0) == Shed(wait_seconds=12.0, retry_after_seconds=7)


@pytest.mark.parametrize("work", [pytest.param(math.inf, id="infinite"), pytest.param(1e300, id="a lot")])
def test_a_wait_without_bound_is_shed_for_as_long_as_one_may_be(work: float) -> None:
    decision = choose([make_endpoint("a", (0, 4, 40), sent=(Sent(NOW, 0, 1, work),), max_wait_seconds=5.0)], Request(), NOW, 0)
    assert isinstance(decision, Shed)
    assert decision.retry_after_seconds == MAX_RETRY_SECONDS


def test_nothing_is_shed_while_one_replica_is_unknown() -> None:
    endpoints = [make_endpoint("a", (0, 4, 40), max_wait_seconds=5.0), Endpoint("b")]
    assert chosen(choose(endpoints, Request(), NOW, 0)) == "a"


def test_what_was_sent_counts_like_what_is_reported() -> None:
    sent = Sent(NOW, 0, 1.0, 5.0)
    assert turn_seconds(make_endpoint("a", (0, 1.0, 5.0), sent=(sent,)), 0, 1.0) == 2.5


@pytest.mark.parametrize(
    ("before", "now", "left"),
    [
        pytest.param(10, 10, [1, 2, 3], id="none has arrived"),
        pytest.param(10, 12, [3], id="the first two have arrived"),
        pytest.param(10, 99, [], id="others' requests have arrived too"),
        pytest.param(10, 1, [1, 2, 3], id="the sidecar has started again"),
        pytest.param(None, 12, [1, 2, 3], id="the first report"),
    ],
)
def test_what_was_sent_is_left_out_once_the_report_has_it(before: int | None, now: int, left: list[int]) -> None:
    sent = [Sent(NOW - 0.01, level, 1.0, 5.0) for level in (1, 2, 3)]
    earlier = None if before is None else Load(NOW - 0.1, arrivals=before)
    assert [one.level for one in unreported(sent, earlier, Load(NOW, arrivals=now))] == left


def test_a_request_that_never_arrives_counts_for_a_second() -> None:
    sent = [Sent(at, 0, 1.0, 5.0) for at in (NOW - LOST_SECONDS, NOW - LOST_SECONDS + 0.01)]
    assert unreported(sent, Load(NOW - 0.1), Load(NOW)) == (sent[1],)


def test_a_replica_of_an_older_release_counts_no_arrivals_and_a_request_in_its_report_counts_once() -> None:
    sent = (Sent(NOW - IN_TRANSIT_SECONDS - 0.01, 0, 1, 1), Sent(NOW - 0.01, 0, 1, 1))
    report = Load(NOW, (LevelLoad(0, 1, 1),))
    assert unreported(sent, Load(NOW - 0.1), report) == (sent[1],)


@pytest.mark.parametrize(
    ("endpoints", "home", "needed"),
    [
        pytest.param([make_endpoint("a", (9, 2, 9)), make_endpoint("b")], "", False, id="one has a free slot"),
        pytest.param([make_endpoint("a", (9, 2, 9)), make_endpoint("b", (9, 2, 9))], "", True, id="none has"),
        pytest.param([make_endpoint("a", (9, 2, 9)), make_endpoint("b")], "a", True, id="the conversation's has none"),
        pytest.param([make_endpoint("a", (9, 2, 9)), make_endpoint("b")], "b", False, id="the conversation's has one"),
        pytest.param([make_endpoint("a", (9, 2, 9))], "", False, id="there is no choice"),
        pytest.param([Endpoint("a"), Endpoint("b")], "", False, id="nothing is known"),
    ],
)
def test_the_length_is_asked_for_only_where_it_matters(endpoints: list[Endpoint], home: str, needed: bool) -> None:
    assert needs_length(endpoints, Request(home=home), NOW) is needed


# --- for any load ------------------------------------------------------------------------------------------------------------------

seconds = st.floats(0, 1e4)
rows = st.tuples(st.integers(-128, 127), st.floats(0.5, 64), seconds)
loads = st.builds(
    lambda levels, slots, ago, draining: Load(NOW - ago, tuple(LevelLoad(*row) for row in levels), slots, draining),
    st.lists(rows, max_size=6), st.floats(1, 256), st.floats(0, 2 * STALE_SECONDS), st.booleans(),
)  # fmt: skip
pools = st.lists(st.none() | loads, max_size=6).map(lambda some: [Endpoint(f"r{number}", load) for number, load in enumerate(some)])
requests = st.builds(Request, st.integers(-128, 127), st.integers(1, 8).map(float), st.sampled_from(["", "r0", "r9"]))


@given(pools, requests, st.integers(0, 1000))
def test_no_other_fresh_replica_is_better_by_more_than_the_homes_bonus(pool: list[Endpoint], request_: Request, turn: int) -> None:
    decision = choose(pool, request_, NOW, turn)
    fresh = [one for one in pool if one.load is not None and NOW - one.load.at <= STALE_SECONDS and not one.load.draining]
    if isinstance(decision, Chosen) and decision.reason is not Reason.ROUND_ROBIN:
        best = min(turn_seconds(one, request_.level, request_.samples) for one in fresh)
        assert decision.wait_seconds <= best + HOME_SECONDS
        assert decision.address in [one.address for one in fresh]


@given(pools, requests, st.integers(0, 1000))
def test_a_request_is_placed_whenever_a_replica_does_not_drain(pool: list[Endpoint], request_: Request, turn: int) -> None:
    takes = [one.address for one in pool if one.load is None or not one.load.draining]
    decision = choose(pool, request_, NOW, turn)
    assert (isinstance(decision, Chosen) and decision.address in takes) if takes else decision == NoEndpoint()


@given(loads, st.integers(-128, 127), st.floats(1, 8))
def test_a_worse_rank_never_waits_less(load: Load, level: int, samples: float) -> None:
    endpoint = Endpoint("a", load)
    assert turn_seconds(endpoint, level, samples) <= turn_seconds(endpoint, MAX_LEVEL, samples) * (1 + 1e-9) + 1e-9


events = st.lists(st.tuples(st.sampled_from(["arrives", "reports"]), st.sampled_from("abcd")), max_size=6)


@given(st.lists(events, min_size=8, max_size=8), st.integers(0, 7), st.floats(0.1, 60))
def test_a_burst_fills_all_slots_whenever_its_requests_arrive_and_are_reported(between: list[Any], turn: int, work: float) -> None:
    """Four replicas with two slots each, and eight requests: `between` is what happens before each is placed."""
    arrived = dict.fromkeys("abcd", 0)
    pool = {name: make_endpoint(name) for name in "abcd"}
    placed = dict.fromkeys("abcd", 0)
    for happens in between:
        for event, name in happens:
            if event == "arrives":
                arrived[name] = min(placed[name], arrived[name] + 1)
            else:
                count = arrived[name]
                load = Load(NOW, (LevelLoad(0, count, count * work),) if count else (), slots=2.0, arrivals=count)
                pool[name] = Endpoint(name, load, unreported(pool[name].sent, pool[name].load, load))
        name = chosen(choose(list(pool.values()), Request(), NOW, turn))
        placed[name] += 1
        pool[name] = replace(pool[name], sent=(*pool[name].sent, Sent(NOW, 0, 1.0, 1.0)))
    assert placed == dict.fromkeys("abcd", 2)
