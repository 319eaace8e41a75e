"""The account of a request: what the log line says, what is kept, and how a person finds it."""

import logging
from dataclasses import replace
from typing import Any

import pytest

from alise_scheduler.admissions import Admitted
from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.core.rank import Policy, PreemptionRule
from alise_scheduler.core.reports import EngineLost, EngineUpdate, Finished, FinishReason, Phase
from alise_scheduler.explain import explain, list_requests
from alise_scheduler.journal import KEPT
from alise_scheduler.state import State
from tests.scheduler.builders import make_ask, make_request, make_state, opened

PROMPT = "the secret recipe of my grandmother"


def admit(state: State, job: str, at: float = 0.0, **fields: object) -> None:
    answer = state.admit(make_ask(job, **{"prompt": PROMPT, "model": "qwen", **fields}), at)
    assert isinstance(answer, Admitted)


def report(state: State, job: str, phase: Phase, at: float, **fields: Any) -> None:
    state.update(EngineUpdate((make_request(job, phase, **fields),)), at)


def finish(state: State, job: str, at: float, **fields: Any) -> None:
    done = Finished(f"r-{job}", job, **{"reason": FinishReason.STOP, "generated_tokens": 30, "prompt_tokens": 10, **fields})
    state.update(EngineUpdate(finished=(done,)), at)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.message == "request ended"]


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "alise_scheduler.journal")


@pytest.fixture
def state() -> State:
    return opened(make_state(), max_num_seqs=1)


def waited_and_ended(state: State, job: str = "b") -> None:
    """Two requests for one slot: the second waits for the first and is preempted once."""
    admit(state, "a")
    report(state, "a", Phase.RUNNING, 0.1)
    admit(state, job, 0.1, request_id="my-id", tenant="team-a", objective="gold")
    report(state, job, Phase.WAITING, 0.2)
    state.decide(0.3)
    report(state, job, Phase.RUNNING, 5.0)
    report(state, job, Phase.OFFLOADED, 6.0, preemptions=1)
    state.decide(6.1)
    finish(state, job, 20.0, age_seconds=19.8, waited_seconds=4.8, preempted_seconds=8.0, preemptions=1, ttft_seconds=5.0)


def test_a_request_that_ends_is_one_line_of_the_log(state: State, caplog: pytest.LogCaptureFixture) -> None:
    waited_and_ended(state)
    (line,) = lines(caplog)
    expected = {
        "request_id": "my-id", "job": "b", "model": "qwen", "tenant": "team-a", "class": "gold", "outcome": "stop",
        "prompt_tokens": 10, "generated_tokens": 30, "waited_seconds": 4.8, "preemptions": 1, "preempted_seconds": 8.0, "ran_seconds": 7.0,
        "ttft_seconds": 5.0, "age_seconds": 19.8, "rule": "arrival", "ahead": 1, "engine_requests": ["r-b"],
    }  # fmt: skip
    assert {name: line[name] for name in expected} == expected
    assert line["predicted_tokens"] > 0


def test_no_account_holds_the_prompt(state: State, caplog: pytest.LogCaptureFixture) -> None:
    waited_and_ended(state)
    said = f"{lines(caplog)} {explain(state, 'my-id', 21.0)} {list_requests(state, 21.0, 100)}"
    assert not any(word in said for word in PROMPT.split() if len(word) > 3)


def test_the_request_is_found_by_the_clients_id_by_its_job_and_by_vllms_id(state: State) -> None:
    admit(state, "a", request_id="my-id")
    report(state, "a", Phase.RUNNING, 0.1, request_id="0_chatcmpl-my-other-id-1a2b3c4d")
    names = ("my-id", "a", "chatcmpl-my-other-id", "my-other-id")
    assert [len(explain(state, name, 1.0)["matches"]) for name in names] == [1, 1, 1, 1]


@pytest.mark.parametrize("name", ["my", "other", "chatcmpl", "1a2b", "", "my-other-id-1a2b3c"])
def test_a_part_of_an_id_finds_nothing(state: State, name: str) -> None:
    admit(state, "job")
    report(state, "job", Phase.RUNNING, 0.1, request_id="chatcmpl-abc.my_x-1a2b3c4d")
    assert explain(state, name, 1.0) == {"matches": []}


def test_requests_with_the_same_id_are_all_explained_the_active_one_first(state: State) -> None:
    for job in "abc":
        admit(state, job, request_id="again")
        report(state, job, Phase.RUNNING, 0.1)
    finish(state, "a", 1.0)
    finish(state, "b", 2.0)
    assert [(match["job"], match["state"]) for match in explain(state, "again", 3.0)["matches"]] == [
        ("c", "live"), ("b", "ended"), ("a", "ended"),
    ]  # fmt: skip


def test_a_waiting_request_is_told_of_running_ones_that_rank_behind_it(state: State) -> None:
    admit(state, "a", min_tokens=1900)
    report(state, "a", Phase.RUNNING, 0.1)
    for job in "bc":
        admit(state, job, 0.1)
        report(state, job, Phase.WAITING, 0.2)
    (match,) = explain(state, "c", 3.0)["matches"]
    assert match["sentences"][1].startswith("1 request ranks before it (0 of them run now; 1 running one ranks behind it), and about 1 can")


def test_a_waiting_request_is_told_who_is_ahead_and_when_its_turn_comes(state: State) -> None:
    admit(state, "a")
    report(state, "a", Phase.RUNNING, 0.1)
    admit(state, "b", 0.1)
    report(state, "b", Phase.WAITING, 0.2)
    (match,) = explain(state, "b", 3.0)["matches"]
    assert (match["phase"], match["standing"]["rule"], match["standing"]["ahead"]) == ("waiting", "arrival", 1)
    assert match["standing"]["turn_seconds"] > 0
    assert match["sentences"][:2] == (
        "It has waited 2.9 s for its first step.",
        "1 request ranks before it (1 of them runs now), and about 1 can run at once: 1 of the same level that arrived earlier.",
    )


def test_an_ended_request_says_how_long_each_phase_took_and_why(state: State) -> None:
    waited_and_ended(state)
    (match,) = explain(state, "my-id", 30.0)["matches"]
    assert match["sentences"][:7] == (
        "It ended 10 s ago. The model ended the answer.",
        "It waited 4.8 s before its first step.",
        "When it began to wait, 1 request ranked before it (1 of them ran), and about 1 could run at once: "
        "1 of the same level that arrived earlier.",
        "Requests of the same level run in the order of arrival.",
        "Its turn was then expected in about 3.4 s.",
        "It was preempted once, and did not run for 8.0 s.",
        "After the last preemption, 1 request ranked before it: 1 of the same level that arrived earlier.",
    )


def test_a_late_request_is_told_that_those_ahead_are_not_late_or_have_less_work_left(state: State) -> None:
    for job, phase, at in (("a", Phase.RUNNING, 0.1), ("late", Phase.WAITING, 0.2), ("fresh", Phase.WAITING, 100.0)):
        admit(state, job, at - 0.1)
        report(state, job, phase, at)
    (match,) = explain(state, "late", 101.5)["matches"]
    assert match["standing"]["rule"] == "late"
    assert "1 not late or with less work left" in match["sentences"][1]


def test_a_request_without_a_connection_to_the_engine_says_so() -> None:
    state = make_state()
    admit(state, "a")
    (match,) = explain(state, "a", 1.0)["matches"]
    assert "The scheduler is not connected to the engine" in match["sentences"][-1]


def test_a_refused_request_is_kept_with_what_the_client_was_told() -> None:
    state = opened(make_state(limits=AdmitLimits(max_wait_seconds=0.001)), max_num_seqs=1)
    for job in "ab":
        admit(state, job)
        report(state, job, Phase.RUNNING if job == "a" else Phase.WAITING, 0.1)
        state.admit_limits = AdmitLimits(max_wait_seconds=0.001 if job == "b" else 0.0)
    refused = state.admit(make_ask("c", request_id="refused"), 1.0)
    assert not isinstance(refused, Admitted)
    (match,) = explain(state, "refused", 2.0)["matches"]
    assert (match["outcome"], match["refusal"]) == ("wait_too_long", refused.message)


def test_a_withdrawn_request_is_one_line_too(state: State, caplog: pytest.LogCaptureFixture) -> None:
    admit(state, "a")
    state.withdraw("a")
    assert [(line["job"], line["outcome"]) for line in lines(caplog)] == [("a", "withdrawn")]


def test_what_the_engine_forgot_in_a_restart_is_lost(state: State, caplog: pytest.LogCaptureFixture) -> None:
    admit(state, "a")
    report(state, "a", Phase.RUNNING, 0.1)
    opened(state)
    assert [(line["job"], line["outcome"]) for line in lines(caplog)] == [("a", "lost")]


@pytest.mark.parametrize(
    ("connected", "outcome", "sentence"),
    [
        pytest.param(True, "withdrawn", "It did not reach the engine", id="the engine would have reported it"),
        pytest.param(False, "lost", "It is not known how it ended", id="it may run in an engine that cannot be reached"),
    ],
)
def test_a_request_that_the_engine_never_reported_is_withdrawn_only_if_the_engine_can_be_reached(
    state: State, connected: bool, outcome: str, sentence: str
) -> None:
    admit(state, "a")
    if not connected:
        state.lost(EngineLost("the stream has ended"))
    state.expire(10.0)
    (match,) = explain(state, "a", 11.0)["matches"]
    assert (match["outcome"], sentence in match["sentences"][0]) == (outcome, True)


def test_a_request_that_failed_open_counts_as_typical_and_says_so(state: State) -> None:
    report(state, "open", Phase.RUNNING, 0.1)
    (match,) = explain(state, "open", 1.0)["matches"]
    assert any("knew nothing of its text" in sentence for sentence in match["sentences"])


def test_samples_of_one_request_end_as_one(state: State, caplog: pytest.LogCaptureFixture) -> None:
    admit(state, "a", samples=2)
    for number in (0, 1):
        report(state, "a", Phase.RUNNING, 0.1, request_id=f"{number}_r")
    for number, tokens in ((0, 10), (1, 40)):
        done = Finished(f"{number}_r", "a", FinishReason.LENGTH if number else FinishReason.STOP, tokens, preemptions=1)
        state.update(EngineUpdate(finished=(done,)), 1.0 + number)
    assert [(line["generated_tokens"], line["preemptions"], line["outcome"]) for line in lines(caplog)] == [(40, 2, "length")]


def test_the_newest_ended_requests_are_kept(state: State) -> None:
    for number in range(KEPT + 5):
        admit(state, f"j{number}")
        state.withdraw(f"j{number}")
    found = [bool(explain(state, f"j{number}", 1.0)["matches"]) for number in (0, 4, 5, KEPT + 4)]
    assert found == [False, False, True, True]


def test_refusals_push_no_ended_request_out(state: State) -> None:
    waited_and_ended(state)
    state.load = replace(state.load, draining=True)
    for number in range(KEPT + 5):
        state.admit(make_ask(f"j{number}", request_id="my-id"), 21.0 + number)
    found = [bool(explain(state, job, 1e4)["matches"]) for job in ("b", "j4", "j5")]
    newest = [match["job"] for match in explain(state, "my-id", 1e4)["matches"][:2]]
    assert (found, newest) == ([True, False, True], ["j1004", "j1003"])


def test_ended_and_refused_requests_are_named_newest_first(state: State) -> None:
    state.load = replace(state.load, draining=True)
    state.admit(make_ask("before", request_id="my-id"), 1.0)
    state.load = replace(state.load, draining=False)
    waited_and_ended(state)
    state.load = replace(state.load, draining=True)
    state.admit(make_ask("after", request_id="my-id"), 21.0)
    assert [match["job"] for match in explain(state, "my-id", 30.0)["matches"]] == ["after", "b", "before"]


def test_active_requests_are_listed_by_rank(state: State) -> None:
    for number, job in enumerate("abc"):
        admit(state, job, float(number))
        report(state, job, Phase.WAITING if number else Phase.RUNNING, 0.1 + number)
    listed = list_requests(state, 5.0, 2)
    assert [request["job"] for request in listed["requests"]] == ["a", "b"]
    assert (listed["by_phase"]["waiting"], listed["by_phase"]["running"], listed["slots"]) == (2, 1, 1)


def test_running_requests_that_are_not_preempted_are_named(state: State) -> None:
    state.policy = Policy(name="sjf", ageing=None, preemption=PreemptionRule(levels=0))
    admit(state, "a", max_tokens=2000)
    report(state, "a", Phase.RUNNING, 0.1, max_tokens=2000)
    admit(state, "b", 0.1, max_tokens=2)
    report(state, "b", Phase.WAITING, 0.2, max_tokens=2)
    (match,) = explain(state, "b", 3.0)["matches"]
    assert match["standing"]["rule"] == "slots"
    assert "running requests are not preempted by rank" in match["sentences"][1]


def test_names_that_clients_choose_are_no_commands_to_a_terminal(state: State) -> None:
    admit(state, "a", model="\x1b[2Jqwen\u202e", tenant="team\r\n")
    report(state, "a", Phase.RUNNING, 0.1, request_id="chatcmpl-\x07-1a2b3c4d")
    (match,) = explain(state, "a", 1.0)["matches"]
    assert (match["model"], match["tenant"], match["engine_requests"]) == ("?[2Jqwen?", "team??", ["chatcmpl-?-1a2b3c4d"])


def test_ids_that_callers_choose_are_no_commands_to_a_terminal(state: State) -> None:
    admit(state, "job\x1b[2J", request_id="id\u202e")
    (match,) = explain(state, "job\x1b[2J", 1.0)["matches"]
    assert (match["request_id"], match["job"]) == ("id?", "job?[2J")


def test_the_backlog_of_the_list_is_that_of_the_metric() -> None:
    state = opened(make_state(), max_num_seqs=2)
    for job in "abc":
        admit(state, job)
        report(state, job, Phase.RUNNING if job == "a" else Phase.WAITING, 0.1)
    state.decide(1.0)
    metric = state.metrics.registry.get_sample_value("alise_scheduler_backlog_seconds")
    assert list_requests(state, 1.0, 10)["backlog_seconds"] == pytest.approx(metric, abs=1e-3)


def test_a_request_that_is_admitted_again_keeps_its_account(state: State, caplog: pytest.LogCaptureFixture) -> None:
    admit(state, "a")
    report(state, "a", Phase.RUNNING, 0.1)
    admit(state, "b", 0.1)
    report(state, "b", Phase.WAITING, 0.2)
    state.decide(0.3)
    admit(state, "b", 0.4, objective="gold")
    report(state, "b", Phase.RUNNING, 5.0)
    finish(state, "b", 6.0)
    assert [(line["class"], line.get("rule")) for line in lines(caplog)] == [("gold", "arrival")]


def test_what_keeps_a_request_waiting_is_noted_when_nothing_did_at_first(state: State, caplog: pytest.LogCaptureFixture) -> None:
    admit(state, "a")
    report(state, "a", Phase.WAITING, 0.1)
    state.decide(0.2)
    state.decide(5.0)
    finish(state, "a", 6.0)
    assert [line["rule"] for line in lines(caplog)] == ["kv_memory"]
