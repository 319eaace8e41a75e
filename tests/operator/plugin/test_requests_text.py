"""What `kubectl alise top` and `kubectl alise explain` print."""

from typing import Any

from kubectl_alise.requests_text import explain_text, found, top_text
from tests.operator.plugin.objects import listed, request

MATCH = {**request(), "sentences": ["It has waited 12 s for its first step.", "Requests with less work left go first."]}


def test_requests_are_listed_by_pod_and_rank() -> None:
    first = listed(request("a", phase="running"), request("b", phase="offloaded", preemptions=2, preempted_seconds=3.21))
    lines = top_text({"p1": first, "p2": listed(request("c"))}, {})
    assert lines[0] == "p1: 1 run on 8 slots, 0 wait, 1 are preempted; about 12 s of work."
    rows = [line.split() for line in lines[4:]]
    assert [row[:4] for row in rows] == [["p1", "1", "a", "running"], ["p1", "2", "b", "offloaded"], ["p2", "1", "c", "waiting"]]
    assert (rows[0][-2:], rows[1][9:11], rows[2][-2:]) == (["-", "-"], ["2x", "3.2s"], ["4.0s", "length"])


def test_pods_that_do_not_answer_say_why_and_the_others_are_listed() -> None:
    lines = top_text({"p1": listed(request("a"))}, {"p2": "its scheduler does not run (CrashLoopBackOff)"})
    assert "p2: its scheduler does not run (CrashLoopBackOff)." in lines
    assert any(line.split()[:3] == ["p1", "1", "a"] for line in lines)


def test_a_list_that_is_cut_says_how_many_are_missing() -> None:
    answer = listed(request("a"))
    answer["by_phase"]["waiting"] = 41
    assert top_text({"p1": answer}, {})[-1] == "40 more are not shown; see --limit."


def test_a_scheduler_without_its_engine_is_named() -> None:
    assert "in the order of arrival" in top_text({"p1": listed(connected=False)}, {})[1]


def test_an_explanation_names_the_pod_and_has_the_schedulers_sentences() -> None:
    lines = explain_text("req-7", {"p1": {"matches": []}, "p2": {"matches": [MATCH]}}, {})
    assert lines == [
        "Request req-7 in p2 (job job-1, model qwen, class default)",
        "  It has waited 12 s for its first step.",
        "  Requests with less work left go first.",
    ]


def test_a_request_that_no_pod_knows_says_where_else_to_look_and_who_was_not_asked() -> None:
    answers: dict[str, Any] = {"p1": {"matches": []}}
    lines = explain_text("req-8", answers, {"p2": "its scheduler does not run (Pending)"})
    assert not found(answers)
    assert lines[0].startswith("No pod knows a request req-8.")
    assert lines[-1] == "p2 was not asked: its scheduler does not run (Pending)."
