"""How a container ended, why, and what to do, as the resource says it."""

from typing import Any

import pytest

from alise_operator.endings import Ending, view_ending, view_failure
from tests.operator.builders import pod_object
from tests.operator.built import pod as built_pod

BEGAN, ENDED, LATER = ("2026-01-01T12:00:00Z", "2026-01-01T12:00:40Z", "2026-01-01T12:10:00Z")
STARTING = "INFO: a line of the log\nalise-engine: ended while it was starting\n"
TRACEBACK = """Traceback (most recent call last):
  File "/opt/alise/bin/alise-engine", line 5, in <module>
    from alise_engine.serve.cli import main
ModuleNotFoundError: No module named 'alise_engine'
"""
LIVENESS = "Liveness probe failed: HTTP probe failed with statuscode: 404"
LIVENESS_ENDS = "Container engine failed liveness probe, will be restarted"
STARTUP_ENDS = "Container engine failed startup probe, will be restarted"
STARTUP = 'Startup probe failed: Get "http://10.42.0.6:8000/health": dial tcp 10.42.0.6:8000: connect: connection refused'


def ended(name: str, code: int, said: str = "", *, own: dict[str, Any] | None = None, reason: str = "", **patch: Any) -> Ending:
    """The ending of a container of a pod of ours; `patch` is a patch of the engine, `own` a container of the user's."""
    spec = built_pod(podTemplate={"spec": {"containers": [{"name": "engine", **patch}, *([own] if own else [])]}})
    state = {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "message": said}
    return view_ending(
        pod_object() | {"spec": spec}, {"name": name, "image": "reg/team:1"}, state | {"startedAt": BEGAN, "finishedAt": ENDED}
    )


def event(said: str, *, of: str = "engine", first: str = BEGAN, last: str = ENDED) -> dict[str, Any]:
    path = f"spec.containers{{{of}}}"
    return {"involvedObject": {"kind": "Pod", "fieldPath": path}, "message": said, "firstTimestamp": first, "lastTimestamp": last}


def explained(ending: Ending, *events: dict[str, Any]) -> str:
    return ending.explain([failure for one in events if (failure := view_failure(one)) is not None])


WARMUP = {"name": "warmup", "image": "reg/warmup:1"}


def test_a_container_of_the_user_that_has_finished_is_sent_to_the_init_containers() -> None:
    assert explained(ended("warmup", 0, own=WARMUP)) == (
        "container warmup of pod tiny-1 ended with exit code 0, and Kubernetes keeps restarting it, because a container listed "
        "under containers must keep running. If it should run once, move it to spec.podTemplate.spec.initContainers; see kubectl logs "
        "tiny-1 -c warmup --previous"
    )


def test_a_sidecar_that_has_finished_differs_from_an_init_container_by_its_restart_policy() -> None:
    pod = pod_object() | {"spec": {"initContainers": [WARMUP | {"restartPolicy": "Always"}]}}
    said = view_ending(pod, {"name": "warmup"}, {"exitCode": 0, "message": "warm"}).explain()
    assert "because its restartPolicy is Always. If it should run once" in said
    assert "leave out restartPolicy of spec.podTemplate.spec.initContainers[warmup]; its last message: warm; see kubectl logs" in said


def test_a_high_exit_code_of_a_program_is_no_signal() -> None:
    assert "exit code 255" in explained(ended("engine", 255, "gone"))


def test_a_startup_probe_that_gave_too_little_time_is_named_with_its_time_and_the_default() -> None:
    said = explained(ended("engine", 143, STARTING, startupProbe={"failureThreshold": 2}))
    assert said == (
        "container engine of pod tiny-1 was terminated by signal 15 (SIGTERM), exit code 143 (Error): its startup probe failed, so the "
        "kubelet stopped it; spec.podTemplate.spec.containers[engine].startupProbe allows 10 s; the operator's default allows an hour: "
        "leave it out, or raise failureThreshold; see kubectl logs tiny-1 -c engine --previous"
    )


def test_the_words_of_the_probe_come_from_the_events() -> None:
    said = explained(ended("engine", 143, STARTING, startupProbe={"failureThreshold": 2}), event(STARTUP))
    assert 'its startup probe failed (Get "http://10.42.0.6:8000/health": dial tcp 10.42.0.6:8000: connect: connection refused), so' in said


@pytest.mark.parametrize("code", [0, 137, 143])
def test_a_liveness_probe_that_failed_is_named_with_its_field_and_its_words(code: int) -> None:
    ending = ended("engine", code, livenessProbe={"httpGet": {"path": "/healthz"}, "periodSeconds": 5, "failureThreshold": 1})
    assert (
        "its liveness probe failed (HTTP probe failed with statuscode: 404), so the kubelet stopped it; the engine answers GET "
        "/health on port 8000: correct spec.podTemplate.spec.containers[engine].livenessProbe, or leave it out; see kubectl logs"
        in explained(ending, event(LIVENESS), event(LIVENESS_ENDS))
    )


@pytest.mark.parametrize(
    ("probe", "way_out"),
    [
        pytest.param(
            LIVENESS_ENDS,
            "may fail for 120 s; if the engine may take that long to answer, raise "
            "spec.podTemplate.spec.containers[engine].livenessProbe.failureThreshold",
            id="liveness",
        ),
        pytest.param(STARTUP_ENDS, "may fail for an hour; if the model takes longer to load, raise", id="startup"),
    ],
)
def test_a_probe_that_the_user_did_not_write_is_not_to_be_left_out(probe: str, way_out: str) -> None:
    assert way_out in explained(ended("engine", 143), event(probe))
    assert "leave it out" not in explained(ended("engine", 143), event(probe))


def test_a_startup_probe_fails_at_every_start_and_alone_explains_nothing() -> None:
    assert explained(ended("engine", 0), event(STARTUP)) == explained(ended("engine", 0))
    assert "its liveness probe failed (HTTP probe" in explained(ended("engine", 0), event(STARTUP), event(LIVENESS))


def test_a_container_that_was_killed_is_blamed_on_a_probe_only_where_the_kubelet_says_so() -> None:
    """A node that is out of memory may have been slow to answer probes before."""
    assert explained(ended("engine", 137), event(LIVENESS)) == explained(ended("engine", 137))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(event(LIVENESS, of="proxy"), id="of another container"),
        pytest.param(event(LIVENESS, first=LATER, last=LATER), id="after it had ended"),
        pytest.param(event(LIVENESS, first="2025", last="2025"), id="before it had started"),
        pytest.param(event("Readiness probe failed: HTTP probe failed with statuscode: 503"), id="that ends no container"),
        pytest.param(event(LIVENESS) | {"involvedObject": {"kind": "Pod"}}, id="of an unknown container"),
    ],
)
def test_a_failure_of_another_probe_explains_nothing(given: dict[str, Any]) -> None:
    assert explained(ended("engine", 0), given) == explained(ended("engine", 0))


def test_without_events_both_probes_may_be_the_cause() -> None:
    assert (
        "ended with exit code 0 (Completed) and left no message; the kubelet stops a container in this way after its startup or liveness "
        "probe failed: kubectl describe pod tiny-1 says which; see" in explained(ended("engine", 0))
    )
    assert (
        "signal 9 (SIGKILL), exit code 137 (Error) and left no message; the cause may be a node that is out of memory, or the kubelet "
        "after its startup or liveness probe failed (kubectl describe pod tiny-1 says which); see" in explained(ended("engine", 137))
    )


@pytest.mark.parametrize("code", [1, 2, 139])
def test_an_error_of_the_engines_own_is_not_blamed_on_a_probe(code: int) -> None:
    said = explained(ended("engine", code, "alise-engine: the model is not there"), event(LIVENESS))
    assert "probe" not in said
    assert ": alise-engine: the model is not there; see kubectl logs" in said


@pytest.mark.parametrize(
    ("name", "code", "said", "way_out"),
    [
        pytest.param(
            "engine", 1, TRACEBACK, "has no alise engine; set spec.engine.image to an alise engine image, or leave it out", id="a module"
        ),
        pytest.param(
            "engine",
            128,
            'exec: "tini": executable file not found in $PATH: unknown',
            "the image reg/team:1 has no alise engine; set spec.engine.image",
            id="the command of the engine",
        ),
        pytest.param(
            "scheduler",
            128,
            'exec: "alise-scheduler": executable file not found in $PATH: unknown',
            "has no alise scheduler; set spec.scheduling.image to an alise scheduler image, or leave it out",
            id="the command of the scheduler",
        ),
    ],
)
def test_an_image_without_alise_names_the_field_of_the_image(name: str, code: int, said: str, way_out: str) -> None:
    text = explained(ended(name, code, said))
    assert way_out in text
    assert "Traceback" not in text


def test_a_traceback_is_quoted_by_its_error_alone() -> None:
    said = TRACEBACK.replace(
        "ModuleNotFoundError: No module named 'alise_engine'", "torch.OutOfMemoryError: CUDA out of memory.\nTried 2 GiB"
    )
    assert "ended with exit code 1 (Error): torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB; see" in explained(
        ended("engine", 1, said)
    )


def test_memory_of_a_container_of_the_user_is_a_field_of_the_patch() -> None:
    assert "raise spec.podTemplate.spec.containers[warmup].resources.limits.memory; see" in explained(
        ended("warmup", 137, own=WARMUP, reason="OOMKilled")
    )
