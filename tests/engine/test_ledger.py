"""The books of the host store."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_engine.kv.ledger import Copy, Holder, HostLedger, Run
from alise_engine.wire.terms import CODEC_INT8, CODEC_RAW

BLOCK = 32
BYTES = {CODEC_RAW: 100, CODEC_INT8: 30}


def ledger(limit: int = 10_000) -> HostLedger:
    return HostLedger(limit, BLOCK, BYTES)


def holder(name: str, ewt_ms: int = 0, arrival: float = 0.0, on_device: bool = False) -> Holder:
    return Holder(name, on_device, ewt_ms, arrival)


def save(books: HostLedger, name: str, tokens: int, codec: str = CODEC_RAW, ewt_ms: int = 0) -> None:
    books.commit_save(books.plan_save(holder(name, ewt_ms), tokens, codec, (), books.limit_bytes))


def test_a_first_save_writes_every_block_that_holds_a_token() -> None:
    plan = ledger().plan_save(holder("a"), 65, CODEC_RAW, (), 10_000)
    assert (plan.first_block, plan.blocks, plan.tokens) == (0, 3, 65)


def test_a_later_save_writes_only_what_is_not_complete_on_the_host() -> None:
    books = ledger()
    save(books, "a", 65)
    plan = books.plan_save(holder("a"), 130, CODEC_RAW, (), 10_000)
    assert (plan.first_block, plan.blocks, plan.tokens) == (2, 3, 130)


def test_a_save_of_what_is_there_already_writes_nothing() -> None:
    books = ledger()
    save(books, "a", 65)
    assert books.plan_save(holder("a"), 65, CODEC_RAW, (), 10_000).blocks == 0


def test_the_partly_filled_block_is_replaced_and_counted_once() -> None:
    books = ledger()
    save(books, "a", 65)
    save(books, "a", 70, CODEC_INT8)
    assert books.copy("a") == Copy(70, (Run(CODEC_RAW, 2), Run(CODEC_INT8, 1)))
    assert books.used_bytes() == 230


def test_a_budget_below_the_limit_is_kept() -> None:
    plan = ledger().plan_save(holder("a"), 128, CODEC_RAW, (), budget_bytes=250)
    assert (plan.blocks, plan.tokens) == (2, 64)


def test_a_prefix_is_kept_of_what_does_not_fit() -> None:
    plan = ledger(limit=250).plan_save(holder("a"), 128, CODEC_RAW, (), 10_000)
    assert (plan.blocks, plan.tokens, plan.evict) == (2, 64, ())


def test_nothing_is_dropped_for_a_save_that_comes_to_nothing() -> None:
    books = ledger(limit=300)
    save(books, "a", 96)
    plan = books.plan_save(holder("b", ewt_ms=1), 32, CODEC_RAW, [holder("a", ewt_ms=0)], 300)
    assert (plan.blocks, plan.evict) == (0, ())


@pytest.mark.parametrize(
    ("holders", "evicted"),
    [
        pytest.param([holder("a", 500), holder("b", 900)], ("b",), id="the longest expected wait"),
        pytest.param([holder("a", 500, on_device=True), holder("b", 900)], ("a",), id="a copy whose KV is on the device, before any wait"),
        pytest.param([holder("a", 500, 1.0), holder("b", 500, 2.0)], ("b",), id="of equal waits the later arrival"),
        pytest.param([holder("a", 500)], ("a",), id="only what is described"),
    ],
)
def test_what_leaves_first(holders: Sequence[Holder], evicted: tuple[str, ...]) -> None:
    books = ledger(limit=300)
    save(books, "a", 32)
    save(books, "b", 64)
    plan = books.plan_save(holder("new", ewt_ms=100), 32, CODEC_RAW, holders, 300)
    assert plan.evict == evicted
    assert plan.blocks == 1


def test_a_lower_budget_drops_the_longest_waits_until_it_is_kept() -> None:
    books = ledger()
    for name in "abc":
        save(books, name, 64)
    assert books.plan_shrink([holder("a", 1), holder("b", 3), holder("c", 2)], 300) == ("b", "c")


def test_a_release_gives_the_bytes_back_once() -> None:
    books = ledger()
    save(books, "a", 64)
    assert books.release("a")
    assert not books.release("a")
    assert books.used_bytes() == 0


@pytest.mark.parametrize(
    ("first_token", "end_token", "expected"),
    [
        pytest.param(0, 64, (0, 2, None), id="raw blocks alone are exact"),
        pytest.param(0, 100, (0, 4, 2), id="the first int8 block of a mixed copy"),
        pytest.param(96, 128, (3, 4, 3), id="an int8 run that began before"),
        pytest.param(128, 140, (4, 5, None), id="the raw blocks behind an int8 run"),
    ],
)
def test_looking_blocks_up(first_token: int, end_token: int, expected: tuple[int, int, int | None]) -> None:
    books = ledger()
    save(books, "a", 64)
    save(books, "a", 128, CODEC_INT8)
    save(books, "a", 140)
    found = books.lookup("a", first_token, end_token)
    assert (found.first_block, found.end_block, found.first_int8_block) == expected


names = st.sampled_from("abcde")
events = st.lists(
    st.one_of(
        st.tuples(st.just("save"), names, st.integers(1, 400), st.sampled_from([CODEC_RAW, CODEC_INT8])),
        st.tuples(st.just("release"), names, st.just(0), st.just(CODEC_RAW)),
    ),
    max_size=40,
)


@given(events, st.integers(0, 2000), st.integers(0, 2000), st.lists(st.integers(0, 5), min_size=5, max_size=5))
def test_whatever_happens_the_budget_is_kept_and_a_copy_is_whole(
    happened: list[tuple[str, str, int, str]], limit: int, budget: int, waits: list[int]
) -> None:
    books = ledger(limit)
    grown = dict.fromkeys("abcde", 0)
    for kind, name, tokens, codec in happened:
        if kind == "release":
            books.release(name)
            continue
        grown[name] += tokens
        holders = [holder(other, wait, float(wait)) for other, wait in zip("abcde", waits, strict=True)]
        saver = next(h for h in holders if h.request_id == name)
        before = {other: books.copy(other) for other in "abcde"}
        plan = books.plan_save(saver, grown[name], codec, holders, budget)
        assert {other: books.copy(other) for other in "abcde"} == before
        books.commit_save(plan)
        # 1. Never more bytes than allowed, and the sum is the sum of the parts.
        assert books.used_bytes() <= min(limit, budget)
        assert books.used_bytes() == sum(books.bytes_of(books.copy(other)) for other in "abcde")
        assert books.used_bytes() == books.used_bytes(CODEC_RAW) + books.used_bytes(CODEC_INT8)
        # 2. A copy has a block for every token it covers, and covers no token that was not computed.
        for other in "abcde":
            copy = books.copy(other)
            assert copy.tokens <= grown[other]
            assert copy.blocks == -(-copy.tokens // BLOCK)
        # 3. A save never loses of the saver's copy; others lose only what waits longer.
        assert books.copy(name).tokens >= before[name].tokens
        for lost in plan.evict:
            assert next(h for h in holders if h.request_id == lost).leaves_first() > saver.leaves_first()
