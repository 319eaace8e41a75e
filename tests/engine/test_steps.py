"""How long steps and recomputing took."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

from alise_engine.enginecore.steps import Steps
from alise_engine.enginecore.tracker import Tracked, Tracker


class Bench:
    """One request that was preempted with `had` tokens of KV, of which `kept` come back; steps are scheduled and ended by hand."""

    def __init__(self, had: int, kept: int = 0) -> None:
        self.tally: Counter[str] = Counter()
        tracker = Tracker()
        self.request: Any = SimpleNamespace(
            request_id="r",
            priority=0,
            num_prompt_tokens=4,
            num_tokens=had + 1,
            num_output_tokens=0,
            num_computed_tokens=kept,
            max_tokens=99,
        )
        self.tracked: Tracked = tracker.add(self.request, "", "", 0.0)
        self.tracked.preempted_tokens = had
        self.kept = kept
        self.steps = Steps(tracker, self.tally)

    def resume(self, tokens: int, at: float) -> None:
        self.request.num_computed_tokens += tokens
        self.steps.resumed(self.tracked, self.kept, tokens)
        self.steps.scheduled({"r": tokens}, tokens, {"r": self.request}, 0, at)

    def go_on(self, tokens: int, at: float, *, kv_full: bool = False) -> None:
        self.request.num_computed_tokens += tokens
        self.steps.scheduled({"r": tokens}, tokens, {"r": self.request}, 0, at, kv_full=kv_full)


def test_what_came_back_whole_recomputes_nothing() -> None:
    bench = Bench(had=40, kept=40)
    bench.resume(1, at=1.0)
    bench.steps.over({"r": 1}, 1.5)
    assert (bench.tally["restores"], bench.tally["exact_resumes"], bench.tally["recomputes"], bench.tally["recompute_us"]) == (1, 1, 0, 0)


def test_recomputing_takes_as_long_as_the_steps_that_do_it() -> None:
    bench = Bench(had=40)
    bench.resume(30, at=1.0)
    bench.steps.over({"r": 30}, 1.5)
    bench.go_on(11, at=2.0)
    bench.steps.over({"r": 11}, 2.25)
    bench.go_on(1, at=3.0)
    bench.steps.over({"r": 1}, 4.0)
    assert (bench.tally["recomputes"], bench.tally["recomputed_tokens"], bench.tally["recompute_us"]) == (1, 40, 750_000)


def test_a_step_without_the_recomputing_request_does_not_count() -> None:
    bench = Bench(had=40)
    bench.resume(30, at=0.0)
    bench.steps.over({"r": 30}, 0.5)
    bench.steps.scheduled({}, 0, {}, 0, 1.0)
    bench.steps.over({}, 9.0)
    assert bench.tally["recompute_us"] == 500_000


def test_a_request_that_stops_recomputes_no_more() -> None:
    bench = Bench(had=40)
    bench.resume(30, at=0.0)
    bench.steps.over({"r": 30}, 0.5)
    bench.steps.stopped("r")
    bench.go_on(10, at=1.0)
    bench.steps.over({"r": 10}, 2.0)
    assert bench.tally["recompute_us"] == 500_000


def test_a_step_that_was_scheduled_while_another_ran_starts_when_that_one_ends() -> None:
    bench = Bench(had=2)
    bench.resume(3, at=0.0)
    bench.go_on(1, at=0.1)
    bench.steps.over({"r": 3}, 1.0)
    bench.steps.over({"r": 1}, 1.25)
    assert (bench.tally["recompute_us"], bench.tally["steps"]) == (1_000_000, 2)


def test_tokens_are_counted_and_only_steps_without_kv_room_count_as_time_without_it() -> None:
    bench = Bench(had=40, kept=40)
    bench.go_on(8, at=1.0, kv_full=True)
    bench.steps.over({"r": 8}, 1.5)
    bench.go_on(1, at=2.0)
    bench.steps.over({"r": 1}, 2.25)
    assert (bench.tally["computed_tokens"], bench.tally["kv_full_us"]) == (9, 500_000)
