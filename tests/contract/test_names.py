"""The numbers both sides of a socket must agree on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.names import MAX_LEVEL, MIN_LEVEL, owner_of, pack_priority, unpack_priority

levels = st.integers(MIN_LEVEL, MAX_LEVEL)
orders = st.integers(-(2**31), 2**31 - 1)


@given(levels, orders)
def test_a_priority_unpacks_to_what_was_packed(level: int, order: int) -> None:
    assert unpack_priority(pack_priority(level, order)) == (level, order)


@given(levels, orders, levels, orders)
def test_priorities_sort_by_level_then_order(level: int, order: int, other_level: int, other_order: int) -> None:
    assert (pack_priority(level, order) < pack_priority(other_level, other_order)) == ((level, order) < (other_level, other_order))


def test_an_unstamped_request_is_neutral() -> None:
    assert unpack_priority(0) == (0, 0)


@pytest.mark.parametrize(
    ("level", "order"),
    [
        pytest.param(128, 0, id="level above the highest"),
        pytest.param(-129, 0, id="level below the lowest"),
        pytest.param(0, 2**31, id="order above the highest"),
        pytest.param(0, -(2**31) - 1, id="order below the lowest"),
    ],
)
def test_a_rank_out_of_range_is_refused(level: int, order: int) -> None:
    with pytest.raises(ValueError, match="is outside"):
        pack_priority(level, order)


@pytest.mark.parametrize(
    ("tenant", "whose"),
    [
        pytest.param("team-a", "team-a", id="a tenant"),
        pytest.param("team-a/x/y", "team-a", id="a part of one"),
        pytest.param("", "", id="the anonymous tenant"),
    ],
)
def test_whose_share_a_request_takes_from(tenant: str, whose: str) -> None:
    assert owner_of(tenant) == whose
