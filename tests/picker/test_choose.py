"""Which replica gets a request: the decision in plain functions."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.names import MAX_LEVEL
from alise_picker.choose import (
    HOME_SECONDS,
    IN_TRANSIT_SECONDS,
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


def test_what_was_sent_counts_until_the_report_has_it() -> None:
    sent = (Sent(NOW - 0.01, 0, 1.0, 5.0), Sent(NOW - 0.01, 0, 1.0, 5.0))
    old = tuple(Sent(NOW - IN_TRANSIT_SECONDS - 1, 0, 1.0, 5.0) for _ in range(2))
    assert turn_seconds(make_endpoint("a", sent=sent), 0, 1.0) == 2.5
    assert turn_seconds(make_endpoint("a", sent=old), 0, 1.0) == 0.0


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
