"""The conditions Ready and Progressing, and the status as a whole."""

from dataclasses import replace
from typing import Any

import pytest

from alise_operator.errors import ApplyError, MissingApi, NameTaken, OperatorError
from alise_operator.observation import Observation, Trouble
from alise_operator.route_ready import Way
from alise_operator.status import BLOCKING, degraded, fold, progressing, ready
from tests.operator.builders import OWNER, make_pod, make_spec
from tests.operator.statuses import BAD, GOOD, LATER, MIB, NOON, NOTHING, condition_of, reported, rolling, seen, status_of, troubled


@pytest.mark.parametrize(
    ("spec", "error", "observation", "status", "reason"),
    [
        pytest.param({}, None, GOOD, "True", "Serving", id="all pods ready"),
        pytest.param({"replicas": 2}, None, seen(desired=2, ready=1), "True", "Serving", id="one of two ready still serves"),
        pytest.param({}, None, seen(ready=0), "False", "Starting", id="no pod ready yet"),
        pytest.param({}, None, NOTHING, "False", "Starting", id="no Deployment yet"),
        pytest.param({}, None, troubled("ImagePull"), "False", "ImagePull", id="no image"),
        pytest.param({}, None, troubled("PodsCrashing"), "False", "PodsCrashing", id="crashing"),
        pytest.param({}, None, troubled("Unschedulable"), "False", "Unschedulable", id="no node"),
        pytest.param({"suspend": True}, None, seen(ready=1), "False", "Suspended", id="suspended"),
        pytest.param({"replicas": 0}, None, seen(desired=0, ready=0), "False", "ScaledToZero", id="scaled to zero"),
        pytest.param({}, BAD, GOOD, "True", "ServingOldSpec", id="a bad spec while pods of the last good one serve"),
        pytest.param({}, BAD, seen(ready=0), "False", "InvalidSpec", id="a bad spec while no pod serves"),
        pytest.param({}, None, troubled("MissingSecret"), "False", "MissingSecret", id="a missing secret"),
        pytest.param({}, MissingApi("x"), NOTHING, "False", "MissingApi", id="a missing API"),
        pytest.param({}, ApplyError("x"), GOOD, "True", "ServingOldSpec", id="a child that was refused while pods serve"),
        pytest.param({}, ApplyError("x"), NOTHING, "False", "ApplyFailed", id="a child that was refused"),
        pytest.param({}, NameTaken("x"), NOTHING, "False", "NameTaken", id="a name that is taken"),
    ],
)
def test_ready(spec: dict[str, Any], error: OperatorError | None, observation: Observation, status: str, reason: str) -> None:
    condition = ready(make_spec(**spec), error, observation)
    assert (condition.status, condition.reason) == (status, reason)
    assert condition.message


def test_a_bad_spec_says_what_is_wrong_and_what_still_runs() -> None:
    message = ready(None, BAD, seen(desired=2, ready=2)).message
    assert message == "pods with the last valid spec are kept: 2 of 2 pods ready; spec.replicas: -1 is below the smallest allowed value 0"


def test_a_bad_first_spec_says_that_nothing_runs() -> None:
    assert ready(None, BAD, NOTHING).message.startswith("no pods are running; ")


@pytest.mark.parametrize(
    ("error", "observation", "status", "reason"),
    [
        pytest.param(None, GOOD, "False", "Complete", id="all done"),
        pytest.param(None, NOTHING, "True", "Applying", id="no Deployment yet"),
        pytest.param(None, seen(observed=False), "True", "Applying", id="a spec that was not taken up yet"),
        pytest.param(None, seen(desired=2, updated=1, replicas=2, ready=2), "True", "RollingOut", id="old pods among new ones"),
        pytest.param(None, seen(desired=1, updated=1, replicas=2, ready=2), "True", "RollingOut", id="old pods still there"),
        pytest.param(None, seen(desired=2, updated=1, replicas=1, ready=1), "True", "Starting", id="one more pod, none of them old"),
        pytest.param(None, seen(ready=0), "True", "Starting", id="a pod that loads its model"),
        pytest.param(
            None, seen(make_pod(), make_pod(name="tiny-2", terminating=True)), "True", "Draining", id="a pod that finishes its streams"
        ),
        pytest.param(
            None,
            seen(make_pod(), make_pod(name="tiny-2", terminating=True, ready=False, served=False)),
            "True",
            "Stopping",
            id="a pod that stops before it was ready",
        ),
        pytest.param(None, seen(stalled=True, ready=0), "False", "Stalled", id="a stuck rollout"),
        pytest.param(BAD, GOOD, "False", "InvalidSpec", id="a bad spec"),
        pytest.param(ApplyError("x"), GOOD, "False", "ApplyFailed", id="a child that was refused"),
    ],
)
def test_progressing(error: OperatorError | None, observation: Observation, status: str, reason: str) -> None:
    condition = progressing(make_spec(), error, observation)
    assert (condition.status, condition.reason) == (status, reason)
    assert condition.message


@pytest.mark.parametrize(("surges", "said"), [(True, "older ones, which stay until enough newer ones are ready"), (False, "older ones")])
def test_a_rollout_says_whether_older_pods_wait_for_newer_ones(surges: bool, said: str) -> None:
    message = progressing(make_spec(), None, seen(desired=2, updated=1, replicas=2, surges=surges)).message
    assert message == f"pods with the current spec are replacing {said}"


def test_while_only_pods_of_the_previous_spec_serve_ready_says_so() -> None:
    starting = make_pod(name="tiny-2", ready=False, report=None, template="new")
    condition = ready(make_spec(), None, rolling(starting))
    assert (condition.status, condition.reason) == ("True", "ServingOldSpec")
    assert condition.message == "1 of 1 pods ready, with the previous spec; pods with the current spec are starting"
    assert ready(make_spec(), None, rolling(make_pod(name="tiny-2", template="new"), ready=2)).reason == "Serving"
    assert ready(make_spec(), None, rolling(starting, observed=False)).reason == "ServingOldSpec"


def test_a_new_pod_without_room_names_the_rollout_that_needs_none() -> None:
    waiting = make_pod(name="tiny-2", ready=False, report=None, template="new", troubles=(Trouble("Unschedulable", "no nvidia.com/gpu"),))
    hint = "an older pod still uses the capacity; spec.engine.rollout: replace stops the older pod first"
    assert f"no nvidia.com/gpu; {hint}" in degraded(None, rolling(waiting)).message
    assert hint in ready(make_spec(), None, rolling(waiting)).message
    assert hint in progressing(make_spec(), None, rolling(waiting)).message
    assert hint not in degraded(None, rolling(waiting, surges=False)).message
    # Another pod is missing as well, so Kubernetes would stop no ready one.
    assert hint not in degraded(None, rolling(waiting, desired=2)).message
    assert hint not in degraded(None, seen(waiting, ready=0, template="new")).message


def test_that_an_older_pod_has_no_room_is_no_trouble_once_there_is_a_newer_one() -> None:
    older = make_pod(name="tiny-3", uid="uid-3", ready=False, template="old", troubles=(Trouble("Unschedulable", "its old request"),))
    newer = make_pod(name="tiny-2", uid="uid-2", ready=False, template="new", troubles=(Trouble("Unschedulable", "its new request"),))
    assert "its old request" in degraded(None, seen(older, template="new")).message
    message = degraded(None, seen(older, newer, template="new")).message
    assert "its new request" in message
    assert "its old request" not in message


@pytest.mark.parametrize("reason", sorted(BLOCKING))
def test_a_rollout_that_meets_trouble_is_blocked(reason: str) -> None:
    stuck = make_pod(name="tiny-2", ready=False, report=None, template="new", troubles=(Trouble(reason, "words"),))
    condition = progressing(make_spec(), None, rolling(stuck))
    assert (condition.status, condition.reason) == ("False", reason)
    assert condition.message.startswith("the rollout is blocked: words")


def test_a_pod_that_never_served_has_no_streams_to_wait_for() -> None:
    leaving = make_pod(name="tiny-2", terminating=True, ready=False, served=False)
    message = progressing(make_spec(), None, seen(make_pod(), leaving)).message
    assert message == "waiting for 1 pod to stop"
    served = make_pod(name="tiny-3", terminating=True)
    both = progressing(make_spec(), None, seen(make_pod(), leaving, served)).message
    assert both == "waiting for 1 pod to finish open streams and stop"


def test_trouble_of_a_pod_that_is_being_replaced_holds_nothing_up() -> None:
    crashing = make_pod(ready=False, report=None, template="old", troubles=(Trouble("PodsCrashing", "words"),))
    starting = make_pod(name="tiny-2", ready=False, report=None, template="new")
    assert progressing(make_spec(), None, seen(crashing, starting, ready=0, replicas=2, template="new")).reason == "RollingOut"


def test_pods_that_come_before_others_go_are_not_counted_beyond_what_was_asked_for() -> None:
    assert ready(make_spec(), None, seen(replicas=2, ready=2)).message == "1 of 1 pods ready"


def test_the_status_holds_what_scale_and_columns_read() -> None:
    status = status_of(seen(desired=2, replicas=2, ready=1), {})
    assert (status["replicas"], status["readyReplicas"], status["selector"]) == (2, 1, "alise.dev/engine=tiny")
    assert (status["observedGeneration"], status["url"]) == (3, "http://tiny.default.svc/v1")
    assert {one["observedGeneration"] for one in status["conditions"]} == {3}


def test_nothing_changes_when_nothing_happened() -> None:
    first = status_of(GOOD, {}, now=NOON)
    assert status_of(GOOD, first, now=LATER) == first


def test_a_transition_is_dated_when_the_truth_changes_and_not_when_only_its_reason_does() -> None:
    first = status_of(troubled("ImagePull"), {}, now=NOON)
    other_reason = status_of(troubled("Unschedulable"), first, now=LATER)
    recovered = status_of(GOOD, first, now=LATER)
    assert condition_of(other_reason, "Degraded")["lastTransitionTime"] == "2026-01-01T12:00:00Z"
    assert condition_of(other_reason, "Degraded")["reason"] == "Unschedulable"
    assert condition_of(recovered, "Degraded")["lastTransitionTime"] == "2026-01-01T13:00:00Z"


def test_the_url_is_kept_while_the_cluster_lacks_what_the_new_route_needs() -> None:
    route = {"type": "RouteReady", "status": "True", "reason": "Applied", "message": "", "lastTransitionTime": "2026-01-01T12:00:00Z"}
    new = make_spec(route={"type": "HTTPRoute", "hosts": ["new.test"], "parentRef": {"name": "g"}})
    old = {"url": "http://old.test/v1", "conditions": [route]}
    way = Way(older={"metadata": {"name": "tiny", "ownerReferences": [{"uid": OWNER.uid}]}})
    assert status_of(GOOD, old, spec=new, way=way, error=MissingApi("install it"))["url"] == "http://old.test/v1"


def test_the_url_is_kept_while_the_spec_cannot_be_read() -> None:
    first = status_of(GOOD, {})
    assert status_of(GOOD, first, spec=None, error=BAD)["url"] == first["url"]


def test_fast_numbers_never_reach_the_status() -> None:
    quiet = status_of(reported(recent_requests=1, host_used_bytes=5), {})
    busy = status_of(reported(recent_requests=900, host_used_bytes=77 * MIB), {})
    assert quiet == busy


def test_the_message_mentions_loading_the_model_once_the_engine_runs() -> None:
    pending, loading = make_pod(ready=False, report=None), make_pod(ready=False, report=None, running=True)
    assert ready(make_spec(), None, seen(pending, ready=0)).message == "0 of 1 pods ready"
    assert "is loading the model, which can take several minutes" in ready(make_spec(), None, seen(loading, ready=0)).message


def test_a_suspended_engine_with_a_mistake_says_that_pods_start_only_after_both() -> None:
    condition = progressing(make_spec(suspend=True), BAD, NOTHING, suspended=True)
    assert condition.message == (
        "the operator is waiting until the spec is corrected; spec.suspend is also true, so pods start only after it is set to false"
    )


def test_a_suspended_engine_says_so_too_where_the_spec_cannot_be_parsed() -> None:
    status = status_of(NOTHING, {}, spec=None, error=BAD, suspended=True)
    assert "spec.suspend is also true" in condition_of(status, "Progressing")["message"]


def test_a_suspended_engine_says_that_it_is_stopped_and_how_many_pods_there_will_be() -> None:
    stopped = replace(seen(desired=0, updated=0, replicas=0, ready=0), pods=())
    status = status_of(stopped, {}, spec=make_spec(suspend=True, replicas=10000))
    assert (
        condition_of(status, "Ready")["message"] == "all pods are stopped because spec.suspend is true; set it to false to run 10000 pods"
    )
    assert condition_of(status, "Progressing")["message"] == "all pods are stopped because spec.suspend is true"
    assert condition_of(status, "Degraded")["message"] == (
        "nothing is wrong; the AliseEngine is suspended, and 10000 pods will run when spec.suspend is false"
    )
    assert condition_of(status, "RouteReady")["message"].endswith("once spec.suspend is false and a pod is ready")


def test_a_suspended_engine_whose_pods_are_still_there_says_that_they_finish_their_answers() -> None:
    said = "pods finish their open answers and stop because spec.suspend is true; set it to false to run 1 pod"
    assert ready(make_spec(suspend=True), None, seen(desired=0, replicas=2, ready=2)).message == said
    # A Deployment does not count pods that are being deleted.
    leaving = make_pod(terminating=True, served=True)
    assert ready(make_spec(suspend=True), None, seen(leaving, desired=0, updated=0, replicas=0, ready=0)).message == said


def test_an_engine_scaled_to_zero_says_that_its_pods_are_stopped() -> None:
    condition = progressing(make_spec(replicas=0), None, seen(desired=0, updated=0, replicas=0, ready=0))
    assert condition.message == "all pods are stopped because spec.replicas is 0"


def test_a_deployment_that_was_just_applied_waits_for_its_controller() -> None:
    message = progressing(make_spec(), None, seen(observed=False)).message
    assert message == "the Deployment has been applied; waiting for the Deployment controller"


def test_a_resource_of_which_nothing_was_applied_has_no_url() -> None:
    status = fold(spec=make_spec(), owner=OWNER, generation=1, error=BAD, observation=NOTHING, previous={}, now=NOON)
    assert "url" not in status
