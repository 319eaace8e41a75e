"""What `make run` says, from numbers alone."""

import re
import sys
import time

import pytest

from tests.cluster.errors import ClusterError
from tests.cluster.progress import say, step
from tests.tools import run_cluster, run_forward, run_report
from tests.tools.run_report import NOTHING, Answer, PodNumbers

STATUS = {
    "admission": {"requests": "12", "failed_open": "1"},
    "counters": {"preemptions_rank": "3", "preemptions_memory": "1", "restores": "4", "steps": "900"},
}
METRICS = """# HELP alise_scheduler_answer_tokens_total Output tokens of answers that ended
# TYPE alise_scheduler_answer_tokens_total counter
alise_scheduler_answer_tokens_total{kind="predicted"} 300.0
alise_scheduler_answer_tokens_total{kind="real"} 250.0
# HELP alise_scheduler_length_ratio Predicted median length over the real one
# TYPE alise_scheduler_length_ratio histogram
alise_scheduler_length_ratio_bucket{le="1.0"} 4.0
alise_scheduler_length_ratio_bucket{le="+Inf"} 10.0
alise_scheduler_length_ratio_count 10.0
alise_scheduler_length_ratio_sum 12.0
"""


def test_a_step_is_named_again_after_a_line_that_came_between(capsys: pytest.CaptureFixture[str]) -> None:
    with step("start the node"):
        say("    images: built")
    assert re.sub(r"[0-9.]+ s", "1.0 s", capsys.readouterr().err) == "  start the node … \n    images: built\n  start the node … 1.0 s\n"


def test_a_step_without_lines_between_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with step("start the node"):
        pass
    assert re.fullmatch(r"  start the node … [0-9.]+ s\n", capsys.readouterr().err)


@pytest.mark.parametrize(("error", "how"), [(KeyboardInterrupt(), "interrupted"), (RuntimeError("no room"), "failed")])
def test_a_step_says_whether_it_failed_or_was_interrupted(capsys: pytest.CaptureFixture[str], error: BaseException, how: str) -> None:
    with pytest.raises(type(error)), step("start the node"):
        raise error
    assert re.fullmatch(rf"  start the node … {how} after [0-9.]+ s\n", capsys.readouterr().err)


def test_a_pods_numbers_come_from_its_status_and_its_sidecars_metrics() -> None:
    assert run_report.pod_numbers(STATUS, METRICS) == PodNumbers(12, 1, 4, 4, 0, 10, 300.0, 250.0)


def test_a_pod_that_did_nothing_yet_has_zeros() -> None:
    assert run_report.pod_numbers({}, "") == NOTHING


def test_numbers_since_an_earlier_look() -> None:
    earlier = PodNumbers(2, 1, 0, 0, 0, 5, 100.0, 50.0)
    assert run_report.pod_numbers(STATUS, METRICS).since(earlier) == PodNumbers(10, 0, 4, 4, 0, 5, 200.0, 200.0)


def test_the_table_of_pods() -> None:
    pods = {"tiny-b": NOTHING, "tiny-a": PodNumbers(12, 1, 4, 3, 1, 10, 300.0, 250.0)}
    assert run_report.pods_table(pods) == (
        "  pod      requests   unranked   preempted   restored   recomputed   tokens predicted   tokens real\n"
        "  ------   --------   --------   ---------   --------   ----------   ----------------   -----------\n"
        "  tiny-a         12          1           4          3            1                 30            25\n"
        "  tiny-b          0          0           0          0            0                  -             -"
    )


def test_the_table_of_answers() -> None:
    answers = [Answer("long", 0.1, 2.1, 201), Answer("short", 0.05, 0.05, 1), Answer("long", 0.3, 2.3, 401)]
    assert run_report.answers_table(answers) == (
        "  requests   n   TTFT median   TTFT worst   tokens/s each\n"
        "  --------   -   -----------   ----------   -------------\n"
        "  long       2        200 ms       300 ms             135\n"
        "  short      1         50 ms        50 ms              20"
    )


@pytest.mark.parametrize(
    ("ready", "condition", "words"),
    [
        pytest.param(0, {}, "tiny: the operator has not acted on the change yet", id="before the operator spoke"),
        pytest.param(
            1,
            {"reason": "Starting", "message": "one pod loads\nmore"},
            "tiny: 1 of 2 pods ready; the resource says Starting: one pod loads",
            id="while it starts",
        ),
    ],
)
def test_the_line_that_one_waits_with(ready: int, condition: dict[str, str], words: str) -> None:
    assert run_cluster.progress_line(ready, 2, condition) == words


@pytest.mark.parametrize(
    ("said", "port"),
    [
        pytest.param("Forwarding from 127.0.0.1:34567 -> 8000\nForwarding from [::1]:34567 -> 8000\n", 34567, id="kubectl forwards"),
        pytest.param("error: unable to forward port because pod is not running\n", None, id="kubectl complains"),
    ],
)
def test_the_port_that_kubectl_forwards(said: str, port: int | None) -> None:
    assert run_forward.forwarded_port(said) == port


def test_the_next_commands_can_be_typed_as_they_are() -> None:
    text = run_report.next_commands("/k", "http://127.0.0.1:8080", "tiny.test", None, "make cluster-down", "/clone/.venv/bin")
    assert "  export KUBECONFIG=/k\n" in text
    assert "  export PATH=/clone/.venv/bin:$PATH\n" in text
    assert "curl -iN http://127.0.0.1:8080/v1/chat/completions -H 'Host: tiny.test'" in text
    assert text.endswith("  make cluster-down")


def test_a_machine_without_kubectl_is_told_where_the_clusters_own_lies() -> None:
    text = run_report.next_commands("/k", "http://127.0.0.1:8080", "tiny.test", None, None, "/clone/.venv/bin", "/built/bin")
    assert "  export PATH=/clone/.venv/bin:/built/bin:$PATH\n" in text


def test_a_failed_image_build_interrupts_the_minutes_of_other_work() -> None:
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(ClusterError, match="images could not be built"), run_cluster.ImageBuild(failing):
        time.sleep(30)


def test_an_image_build_that_is_left_is_ended_and_interrupts_nothing() -> None:
    began = time.monotonic()
    with run_cluster.ImageBuild([sys.executable, "-c", "import time; time.sleep(60)"]):
        pass
    assert time.monotonic() - began < 30
