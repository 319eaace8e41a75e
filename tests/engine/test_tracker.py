"""What the control server gets to know."""

from types import SimpleNamespace
from typing import Any

from alise_engine.enginecore.tracker import FINISHED_KEPT, MAX_MARKS, PROGRESS_SECONDS, PROGRESS_TOKENS, STEPS_TOLD, HostCopy, Tracker
from alise_engine.wire.calls import Counters, EngineShape, Mark, StepRow, TraceRow

SHAPE = EngineShape(2, 2048, 1024, 32, 65, 131072, 0, "tiny")


def request(name: str = "r1") -> Any:
    return SimpleNamespace(
        request_id=name, priority=7, num_prompt_tokens=5, num_output_tokens=0, num_computed_tokens=0, max_tokens=9, num_preemptions=0
    )


def nothing_saved(request_id: str) -> HostCopy:
    return HostCopy()


def poll(tracker: Tracker, now: float = 0.0) -> Any:
    return tracker.poll(Counters(), nothing_saved, now)


def test_a_new_request_is_told_once_with_its_hint() -> None:
    tracker = Tracker()
    tracker.add(request(), "job", "aGludA==", 0.0)
    assert [(row.job_id, row.hint) for row in poll(tracker).requests] == [("job", "aGludA==")]
    assert poll(tracker, 1.0).requests == ()


def test_a_change_is_told_without_the_hint() -> None:
    tracker = Tracker()
    tracked = tracker.add(request(), "job", "aGludA==", 0.0)
    poll(tracker)
    tracked.request.num_output_tokens = 3
    assert [(row.generated_tokens, row.hint) for row in poll(tracker, PROGRESS_SECONDS).requests] == [(3, "")]


def test_progress_is_told_now_and_then() -> None:
    tracker = Tracker()
    tracked = tracker.add(request(), "job", "", 0.0)
    poll(tracker, 0.0)
    told = []
    for step in range(1, 17):
        tracked.request.num_output_tokens = step
        told += poll(tracker, PROGRESS_SECONDS * step / 8).requests
    assert [row.generated_tokens for row in told] == [8, 16]


def test_a_phase_and_a_first_token_are_told_at_once() -> None:
    tracker = Tracker()
    tracked = tracker.add(request(), "job", "", 0.0)
    poll(tracker, 0.0)
    tracker.enter("r1", "running", 0.01)
    assert [row.phase for row in poll(tracker, 0.01).requests] == ["running"]
    tracked.request.num_output_tokens = 1
    tracker.see_tokens({"r1"}, 0.02)
    assert [row.generated_tokens for row in poll(tracker, 0.02).requests] == [1]


def test_age_alone_is_no_change_and_is_right_when_it_is_told() -> None:
    tracker = Tracker()
    tracker.add(request(), "job", "", 10.0)
    poll(tracker, 10.0)
    assert poll(tracker, 11.0).requests == ()
    tracker.enter("r1", "running", 11.5)
    (row,) = poll(tracker, 12.0).requests
    assert (row.age_ms, row.phase_ms) == (2000, 500)


def test_a_snapshot_tells_everything_again_and_starts_the_deltas_afresh() -> None:
    tracker = Tracker()
    tracker.add(request("r1"), "job", "aGludA==", 0.0)
    tracker.add(request("r2"), "", "", 0.0)
    poll(tracker)
    tracker.finish("r2", "stop", 0.0)
    snapshot = tracker.snapshot(SHAPE, Counters(), nothing_saved, 0.0)
    assert [(row.request_id, row.hint) for row in snapshot.requests] == [("r1", "aGludA==")]
    after = poll(tracker)
    assert (after.requests, after.finished) == ((), ())


def test_an_ending_is_told_once_with_its_first_token_time() -> None:
    tracker = Tracker()
    tracked = tracker.add(request(), "job", "", 1.0)
    tracked.request.num_output_tokens = 1
    tracker.see_tokens({"r1"}, 1.25)
    tracked.request.num_output_tokens = 4
    tracker.finish("r1", "length", 3.0)
    (row,) = poll(tracker, 3.0).finished
    assert (row.reason, row.generated_tokens, row.ttft_ms, row.age_ms) == ("length", 4, 250, 2000)
    assert poll(tracker).finished == ()


def test_an_ending_without_a_token_has_no_first_token_time() -> None:
    tracker = Tracker()
    tracker.add(request(), "job", "", 1.0)
    tracker.finish("r1", "abort", 3.0)
    assert poll(tracker).finished[0].ttft_ms == 0


def test_a_job_ends_with_its_last_request() -> None:
    tracker = Tracker()
    tracker.add(request("r1"), "job", "", 0.0)
    tracker.add(request("r2"), "job", "", 0.0)
    assert tracker.finish("r1", "stop", 0.0) is None
    assert tracker.finish("r2", "stop", 0.0) == "job"
    assert tracker.jobs == {}


def test_buffers_stay_bounded_when_nobody_polls() -> None:
    tracker = Tracker()
    for index in range(FINISHED_KEPT + 10):
        tracker.add(request(f"r{index}"), f"j{index}", "", 0.0)
        tracker.finish(f"r{index}", "stop", 0.0)
        tracker.step(StepRow(index, 0, 1, 1))
    answer = poll(tracker)
    assert (len(answer.finished), len(answer.steps)) == (FINISHED_KEPT, STEPS_TOLD)
    assert answer.steps[-1].duration_us > FINISHED_KEPT
    assert tracker.requests == {}


def test_few_steps_are_told_as_they_were() -> None:
    tracker = Tracker()
    for index in range(STEPS_TOLD):
        tracker.step(StepRow(index, 0, 1, 1))
    assert [step.duration_us for step in poll(tracker).steps] == list(range(STEPS_TOLD))


def test_of_many_steps_those_with_prompts_are_told() -> None:
    tracker = Tracker()
    for index in range(2 * STEPS_TOLD):
        tracker.step(StepRow(index, 40 if index in (4, 11) else 0, 1, 1))
    steps = poll(tracker).steps
    assert len(steps) == STEPS_TOLD
    assert [step.duration_us for step in steps if step.prefill_tokens] == [4, 11]


def test_a_few_tokens_more_are_no_news() -> None:
    tracker = Tracker()
    tracked = tracker.add(request(), "job", "", 0.0)
    tracked.request.num_output_tokens = 20
    poll(tracker, 0.0)
    told = []
    for second in range(1, PROGRESS_TOKENS + 1):
        tracked.request.num_output_tokens += 1
        told += poll(tracker, float(second)).requests
    assert [row.generated_tokens for row in told] == [20 + PROGRESS_TOKENS]


def test_an_ending_says_how_long_the_request_waited_and_was_preempted() -> None:
    tracker = Tracker()
    tracker.add(request(), "job", "", 10.0)
    for phase, at in (("running", 12.5), ("offloaded", 13.0), ("restoring", 15.0), ("running", 15.5), ("preempted", 16.0)):
        tracker.enter("r1", phase, at)
    tracker.finish("r1", "abort", 17.0)
    (ending,) = poll(tracker, 17.0).finished
    assert (ending.waited_ms, ending.preempted_ms, ending.age_ms) == (2500, 3500, 7000)


def test_a_request_that_never_ran_has_waited_all_its_life() -> None:
    tracker = Tracker()
    tracker.add(request(), "job", "", 10.0)
    tracker.finish("r1", "abort", 13.0)
    (ending,) = poll(tracker, 13.0).finished
    assert (ending.waited_ms, ending.preempted_ms) == (3000, 0)


# --- traces -------------------------------------------------------------------------------------------------------------------------


def test_the_story_of_a_traced_request_comes_with_its_ending() -> None:
    tracker = Tracker()
    tracked = tracker.add(request(), "job", "", 10.0, traced=True)
    tracker.enter("r1", "running", 10.5)
    tracked.request.num_output_tokens = 1
    tracker.see_tokens({"r1"}, 10.75)
    tracker.enter("r1", "offloaded", 11.0, 64, "rank")
    assert poll(tracker, 11.0).traces == ()
    tracker.finish("r1", "abort", 12.0)
    answer = poll(tracker, 12.0)
    marks = (
        Mark("running", 10_500_000),
        Mark("first_token", 10_750_000),
        Mark("offloaded", 11_000_000, 64, "rank"),
        Mark("ended", 12_000_000),
    )
    assert answer.traces == (TraceRow(answer.finished[0], marks),)
    assert poll(tracker, 13.0).traces == ()


def test_a_request_that_is_not_traced_has_no_story() -> None:
    tracker = Tracker()
    tracker.add(request(), "job", "", 10.0)
    tracker.enter("r1", "running", 10.5)
    tracker.finish("r1", "stop", 12.0)
    assert poll(tracker, 12.0).traces == ()


def test_a_snapshot_loses_no_story() -> None:
    tracker = Tracker()
    tracker.add(request(), "job", "", 10.0, traced=True)
    tracker.finish("r1", "stop", 12.0)
    tracker.snapshot(SHAPE, Counters(), nothing_saved, 12.0)
    assert len(poll(tracker, 12.0).traces) == 1


def test_an_endless_story_keeps_its_beginning_and_its_end() -> None:
    tracker = Tracker()
    tracker.add(request(), "job", "", 0.0, traced=True)
    for second in range(100):
        tracker.enter("r1", "running" if second % 2 == 0 else "preempted", float(second))
    tracker.finish("r1", "stop", 100.0)
    [story] = poll(tracker, 100.0).traces
    assert (len(story.marks), len(story.marks) + story.dropped) == (MAX_MARKS, 101)
    assert (story.marks[0].at_us, story.marks[-1].what) == (0, "ended")
