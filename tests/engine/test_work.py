"""What workers tell of their time."""

from alise_engine.kv.work import Spent


def test_workers_copy_at_the_same_time_so_the_slowest_counts() -> None:
    assert Spent(5.0, 1.0, 0.0).aggregate(Spent(2.0, 3.0, 4.0)) == Spent(5.0, 3.0, 4.0)


def test_a_worker_that_copied_nothing_says_nothing() -> None:
    assert not Spent()
    assert Spent(host_eviction_us=0.5)
