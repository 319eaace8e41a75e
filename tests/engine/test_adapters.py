"""Which adapters are loaded and dropped, in which order, and the reported state of each."""

import pytest

from alise_contract.adapters import Adapter
from alise_engine.api.adapters import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Books,
    Row,
    State,
    dropped,
    failed,
    loaded,
    rows,
    to_drop,
    to_load,
    wanting,
)

A, B = Adapter("a", "/a"), Adapter("b", "/b")
A2 = Adapter("a", "/a", "2")


def serving(*adapters: Adapter) -> Books:
    return Books(adapters, {adapter.name: adapter for adapter in adapters})


def test_what_is_wanted_is_loaded_in_its_order() -> None:
    books = wanting(Books(), (A, B))
    assert to_load(books, 0) == A
    assert to_load(loaded(books, A), 0) == B
    assert to_load(loaded(loaded(books, A), B), 0) is None


def test_what_is_no_longer_wanted_is_dropped() -> None:
    books = wanting(serving(A, B), (B,))
    assert to_drop(books) == "a"
    assert to_drop(dropped(books, "a")) is None


def test_a_new_version_is_loaded_while_the_old_one_is_served() -> None:
    books = wanting(serving(A), (A2,))
    assert (to_drop(books), to_load(books, 0)) == (None, A2)
    assert rows(books) == [Row(A, State.LOADED), Row(A2, State.LOADING)]
    assert rows(loaded(books, A2)) == [Row(A2, State.LOADED)]


def test_a_new_version_that_fails_leaves_the_old_one() -> None:
    books = failed(wanting(serving(A), (A2,)), A2, "no such folder", 0)
    assert rows(books) == [Row(A, State.LOADED), Row(A2, State.FAILED, "no such folder")]


def test_one_that_failed_does_not_keep_the_others_waiting() -> None:
    books = failed(wanting(Books(), (A, B)), A, "wrong", 0)
    assert to_load(books, 0) == B


@pytest.mark.parametrize(("attempts", "pause"), [(1, FIRST_PAUSE_SECONDS), (2, 2 * FIRST_PAUSE_SECONDS), (50, LONGEST_PAUSE_SECONDS)])
def test_one_that_failed_is_tried_again_after_growing_pauses(attempts: int, pause: float) -> None:
    books = wanting(Books(), (A,))
    for _ in range(attempts):
        books = failed(books, A, "wrong", 100.0)
    assert to_load(books, 100.0 + pause - 0.1) is None
    assert to_load(books, 100.0 + pause) == A


def test_a_failure_is_forgotten_once_the_adapter_is_loaded_or_no_longer_wanted() -> None:
    books = failed(wanting(Books(), (A,)), A, "wrong", 0)
    assert rows(loaded(books, A)) == [Row(A, State.LOADED)]
    assert rows(wanting(wanting(books, ()), (A,))) == [Row(A, State.LOADING)]
