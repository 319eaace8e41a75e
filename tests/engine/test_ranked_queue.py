"""The waiting queue, with integers for requests' ranks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.engine


class Waiting:
    """As much of a request as a queue looks at."""

    def __init__(self, rank: int, number: int) -> None:
        self.rank, self.request_id = rank, f"r{number}"

    def __lt__(self, other: "Waiting") -> bool:
        return (self.rank, self.request_id) < (other.rank, other.request_id)


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=40), st.integers(0, 12))
def test_the_best_are_the_first_in_order(ranks: list[int], count: int) -> None:
    from alise_engine.enginecore.ranked_queue import RankedQueue

    queue = RankedQueue()
    requests = [Waiting(rank, number) for number, rank in enumerate(ranks)]
    for request in requests:
        queue.add_request(request)
    ordered = sorted(requests)
    assert queue.best(count) == ordered[:count]
    assert (len(queue), bool(queue)) == (len(requests), bool(requests))
    assert [queue.pop_request() for _ in requests] == ordered
