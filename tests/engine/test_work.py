"""The instructions of workers, and their reports of time."""

import pytest

from alise_engine.kv.work import Drop, Save, Spent

pytestmark = pytest.mark.engine


def test_workers_copy_at_the_same_time_so_the_slowest_counts() -> None:
    assert Spent(5.0, 1.0, 0.0).aggregate(Spent(2.0, 3.0, 4.0)) == Spent(5.0, 3.0, 4.0)


def test_a_worker_that_copied_nothing_says_nothing() -> None:
    assert not Spent()
    assert Spent(host_eviction_us=0.5)


@pytest.mark.parametrize(
    ("given", "beside"),
    [
        pytest.param({7, 8}, True, id="no request gets its blocks"),
        pytest.param({3, 8}, False, id="somebody gets one of its blocks"),
        pytest.param(set(), True, id="no block is given out"),
    ],
)
def test_a_save_runs_beside_the_step_unless_one_of_its_blocks_is_given_away_in_it(given: set[int], beside: bool) -> None:
    from alise_engine.kv.connector import where_it_may_run

    save = where_it_may_run(Save("r", (2, 3, 4), 0, 96, "raw"), given)
    assert isinstance(save, Save)
    assert save.beside is beside


def test_a_drop_is_a_drop() -> None:
    from alise_engine.kv.connector import where_it_may_run

    assert where_it_may_run(Drop("r"), {1}) == Drop("r")
