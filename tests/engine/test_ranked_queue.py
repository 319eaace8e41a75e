"""The waiting queue, with integers for requests' ranks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.engine


class Waiting:
    """As much of a request as a queue looks at."""

    def __init__(self, rank: int, number: int) -> None:
        self.rank, self.request_id, self.held = rank, f"r{number}", False

    def __lt__(self, other: "Waiting") -> bool:
        return (self.rank, self.request_id) < (other.rank, other.request_id)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), max_size=40), st.integers(0, 12))
def test_the_best_are_the_first_in_order_without_those_that_are_held(rows: list[tuple[int, bool]], count: int) -> None:
    from alise_engine.enginecore.ranked_queue import RankedQueue

    queue = RankedQueue(lambda request: request.held)
    requests = [Waiting(rank, number) for number, (rank, _) in enumerate(rows)]
    for request, (_, held) in zip(requests, rows, strict=True):
        request.held = held
        queue.add_request(request)
    free = sorted(request for request in requests if not request.held)
    assert queue.best(count) == free[:count]
    assert (len(queue), bool(queue)) == (len(requests), bool(free))
    assert [queue.pop_request() for _ in free] == free
