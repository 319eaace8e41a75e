from datetime import UTC, datetime
from typing import Any

import pytest

from alise_operator.conditions import Condition
from alise_operator.errors import ApplyError, InvalidSpec, MissingApi, NameTaken, OperatorError, Problem
from alise_operator.observation import NOTHING, Observation, Pod, Trouble
from alise_operator.status import BLOCKING, DEGRADED_ORDER, changes, degraded, fold, is_warning, progressing, ready
from tests.operator.builders import OWNER, make_pod, make_report, make_spec, make_workload

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = datetime(2026, 1, 1, 13, tzinfo=UTC)
BAD = InvalidSpec([Problem("spec.replicas", "-1 is below the smallest allowed value 0")])
GOOD = Observation(make_workload(), (make_pod(),))
MIB = 1 << 20


def seen(*pods: Pod, **workload: Any) -> Observation:
    return Observation(make_workload(**workload), pods or (make_pod(),))


def reported(*, polls: int = 2, **changes: Any) -> Observation:
    """One ready pod that says this of itself, at as many polls in a row."""
    return seen(make_pod(report=make_report(**changes), unranked_polls=polls))


def troubled(reason: str) -> Observation:
    return seen(make_pod(ready=False, report=None, troubles=(Trouble(reason, f"words of {reason}"),)), ready=0)


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


@pytest.mark.parametrize(
    ("error", "bad", "good", "reason", "words"),
    [
        pytest.param(BAD, GOOD, GOOD, "InvalidSpec", "spec.replicas: -1", id="a bad spec"),
        pytest.param(None, troubled("MissingSecret"), GOOD, "MissingSecret", "words of MissingSecret", id="a missing secret"),
        pytest.param(None, troubled("ImagePull"), GOOD, "ImagePull", "words of ImagePull", id="an image"),
        pytest.param(None, troubled("PodsCrashing"), GOOD, "PodsCrashing", "words of PodsCrashing", id="crashes"),
        pytest.param(None, troubled("Unschedulable"), GOOD, "Unschedulable", "words of Unschedulable", id="no node"),
        pytest.param(None, troubled("PodNotStarting"), GOOD, "PodNotStarting", "words of PodNotStarting", id="a pod that does not start"),
        pytest.param(None, seen(troubles=(Trouble("PodsRefused", "quota"),)), GOOD, "PodsRefused", "quota", id="a quota"),
        pytest.param(None, seen(stalled=True), GOOD, "Stalled", "no progress", id="a stuck rollout"),
        pytest.param(
            None,
            reported(sidecar_connected=False),
            reported(polls=1, sidecar_connected=False),
            "SidecarDown",
            "is not connected",
            id="the sidecar is not connected",
        ),
        pytest.param(None, reported(plan_fresh=False), reported(), "SidecarDown", "sends no plans", id="the sidecar hangs"),
        pytest.param(
            None,
            reported(contract_refused=True, refused_contract_version=7),
            reported(),
            "ContractMismatch",
            "pod tiny-1: the scheduler uses contract version 7, the engine uses version 1; use engine, scheduler and operator images "
            "of the same release",
            id="a sidecar of another release",
        ),
        pytest.param(
            None,
            reported(contract_refused=True),
            reported(),
            "ContractMismatch",
            "the scheduler does not support the engine's contract version 1",
            id="a sidecar that refused the engine, or names no version",
        ),
        pytest.param(
            None,
            reported(contract_version=2),
            reported(contract_version=1),
            "ContractMismatch",
            "the engine uses contract version 2, this operator uses version 1; use engine, scheduler and operator images of the "
            "same release",
            id="an engine of another release",
        ),
        pytest.param(
            None,
            reported(recent_requests=60, recent_failed_open=3),
            reported(recent_requests=61, recent_failed_open=3),
            "FailingOpen",
            "the reason will be known after the next poll",
            id="a share of requests unranked",
        ),
        pytest.param(
            None,
            reported(recent_requests=3, recent_failed_open=3),
            reported(recent_requests=2, recent_failed_open=2),
            "FailingOpen",
            "without a rank",
            id="three requests unranked, but not two",
        ),
        pytest.param(
            None,
            seen(make_pod(report=make_report(host_limit_bytes=100 * MIB), host_full=True)),
            seen(make_pod(report=make_report(host_limit_bytes=100 * MIB))),
            "HostMemoryFull",
            "100Mi is full",
            id="a full host store",
        ),
        pytest.param(
            None,
            reported(lacks_api_keys=True),
            reported(lacks_api_keys=False),
            "NoApiKeys",
            "spec.auth.secretRef contains no API key, so every request is rejected",
            id="a Secret without a tenant",
        ),
        pytest.param(
            None,
            reported(encoder_missing=True),
            reported(encoder_missing=False),
            "PredictorWithoutEncoder",
            "spec.predictor.encoder",
            id="a predictor without encoder",
        ),
        pytest.param(
            None,
            seen(make_pod(report=None, report_error="no answer")),
            seen(make_pod(report=None)),
            "StatusUnavailable",
            "pod tiny-1: no answer",
            id="a pod that does not answer",
        ),
        pytest.param(
            None,
            Observation(make_workload(), (make_pod(),), (Trouble("MissingTlsSecret", "create it"),)),
            GOOD,
            "MissingTlsSecret",
            "create it",
            id="an Ingress without its certificate",
        ),
    ],
)
def test_degraded_and_its_opposite(error: OperatorError | None, bad: Observation, good: Observation, reason: str, words: str) -> None:
    wrong, right = degraded(error, bad), degraded(None, good)
    assert (wrong.status, wrong.reason) == ("True", reason)
    assert words in wrong.message
    assert (right.status, right.reason) == ("False", "AsExpected")


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        pytest.param(("deadline",), "deadline (the scheduler answers too late, give it more CPU", id="a slow scheduler needs CPU"),
        pytest.param(("unavailable",), "cannot be reached, see kubectl logs tiny-1 -c scheduler)", id="one that is away has a log"),
        pytest.param(("version",), "use images of the same release", id="another release"),
        pytest.param(
            ("breaker_open", "error"), "error (the scheduler answers with errors, see", id="the cause before what follows from it"
        ),
        pytest.param(("later",), "without a rank: later", id="a reason of a newer engine"),
    ],
)
def test_requests_that_went_in_unranked_say_why_and_what_to_do(reasons: tuple[str, ...], said: str) -> None:
    report = make_report(recent_requests=9, recent_failed_open=9)
    message = degraded(None, seen(make_pod(report=report, failed_open_reasons=reasons))).message
    assert said in message
    assert ("CPU" in message) is ("deadline" in reasons)


EVICTED = make_pod(name="tiny-0", ready=False, report=None, ended=True, troubles=(Trouble("PodsCrashing", "pod tiny-0 failed: Evicted"),))


def test_an_evicted_pod_degrades_only_until_another_serves_in_its_place() -> None:
    alone, replaced = seen(EVICTED, ready=0), seen(EVICTED, make_pod())
    assert degraded(None, alone).reason == "PodsCrashing"
    assert (degraded(None, replaced).status, ready(make_spec(), None, replaced).reason) == ("False", "Serving")
    assert progressing(make_spec(), None, alone).reason == "Starting"


def rolling(new: Pod, **workload: Any) -> Observation:
    """A pod of the previous spec serves; one of the current is to take its place."""
    return seen(make_pod(template="old"), new, **({"replicas": 2, "template": "new"} | workload))


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
    assert hint not in degraded(None, seen(waiting, ready=0, template="new")).message


@pytest.mark.parametrize("reason", sorted(BLOCKING))
def test_a_rollout_that_meets_trouble_is_not_said_to_go_on(reason: str) -> None:
    stuck = make_pod(name="tiny-2", ready=False, report=None, template="new", troubles=(Trouble(reason, "words"),))
    condition = progressing(make_spec(), None, rolling(stuck))
    assert (condition.status, condition.reason) == ("False", reason)
    assert condition.message.startswith("the rollout is blocked: words")


def test_nobody_waits_for_streams_of_a_pod_that_never_served() -> None:
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


def test_the_gravest_trouble_gives_the_reason_and_all_are_told() -> None:
    condition = degraded(
        None,
        seen(
            make_pod(report=make_report(plan_fresh=False), unranked_polls=2),
            make_pod(ready=False, report=None, troubles=(Trouble("ImagePull", "p"),)),
        ),
    )
    assert condition.reason == "ImagePull"
    assert "sends no plans" in condition.message


def test_a_pod_on_its_way_out_degrades_nothing() -> None:
    assert degraded(None, seen(make_pod(terminating=True, report=make_report(sidecar_connected=False)))).status == "False"


@pytest.mark.parametrize("reason", DEGRADED_ORDER)
def test_every_reason_is_one_word(reason: str) -> None:
    assert reason.isalpha()
    assert reason[0].isupper()


def test_messages_stay_short_enough_for_the_api_server() -> None:
    many = tuple(make_pod(name=f"tiny-{n}", troubles=(Trouble("PodsCrashing", "w" * 300),)) for n in range(50))
    assert len(degraded(None, seen(*many)).message) <= 1500


def status_of(observation: Observation, previous: dict[str, Any], *, now: datetime = NOON, **given: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"spec": make_spec(), "owner": OWNER, "generation": 3, "error": None}
    return fold(**(fields | given), observation=observation, previous=previous, now=now)


def condition_of(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(one for one in status["conditions"] if one["type"] == kind)


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


def test_the_url_is_kept_while_the_spec_cannot_be_read() -> None:
    first = status_of(GOOD, {})
    assert status_of(GOOD, first, spec=None, error=BAD)["url"] == first["url"]


def test_fast_numbers_never_reach_the_status() -> None:
    quiet = status_of(reported(recent_requests=1, host_used_bytes=5), {})
    busy = status_of(reported(recent_requests=900, host_used_bytes=77 * MIB), {})
    assert quiet == busy


def test_a_new_engine_is_announced_once_per_reason() -> None:
    announced = changes({}, status_of(seen(ready=0), {}))
    assert [one.reason for one in announced] == ["Starting"]


def test_an_unchanged_status_is_not_announced() -> None:
    status = status_of(GOOD, {})
    assert changes(status, status_of(GOOD, status, now=LATER)) == []


def test_a_bad_spec_is_announced_as_one_warning_and_again_when_it_is_bad_in_another_way() -> None:
    good = status_of(GOOD, {})
    bad = status_of(GOOD, good, error=BAD, spec=None)
    worse = status_of(GOOD, bad, error=InvalidSpec([Problem("spec.drainSeconds", "x")]), spec=None)
    (first,) = changes(good, bad)
    (second,) = changes(bad, worse)
    assert (first.reason, is_warning(first), "spec.replicas" in first.message) == ("InvalidSpec", True, True)
    assert "spec.drainSeconds" in second.message
    assert changes(bad, status_of(GOOD, bad, error=BAD, spec=None)) == []


def test_a_condition_that_degraded_explains_has_no_event_of_its_own() -> None:
    first = fold(spec=make_spec(), owner=OWNER, generation=1, error=None, observation=troubled("Unschedulable"), previous={}, now=NOON)
    applying = {
        **first,
        "conditions": [one | {"reason": "Applying"} if one["type"] == "Progressing" else one for one in first["conditions"]],
    }
    assert changes(applying, first) == []


def test_a_model_is_said_to_load_once_its_engine_runs() -> None:
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
    status = status_of(seen(desired=0, updated=0, replicas=0, ready=0), {}, spec=make_spec(suspend=True, replicas=10000))
    assert (
        condition_of(status, "Ready")["message"] == "all pods are stopped because spec.suspend is true; set it to false to run 10000 pods"
    )
    assert condition_of(status, "Progressing")["message"] == "all pods are stopped because spec.suspend is true"
    assert condition_of(status, "Degraded")["message"] == (
        "nothing is wrong; the AliseEngine is suspended, and 10000 pods will run when spec.suspend is false"
    )
    assert condition_of(status, "RouteReady")["message"].endswith("once spec.suspend is false and a pod is ready")


def test_an_engine_scaled_to_zero_says_that_its_pods_are_stopped() -> None:
    condition = progressing(make_spec(replicas=0), None, seen(desired=0, updated=0, replicas=0, ready=0))
    assert condition.message == "all pods are stopped because spec.replicas is 0"


def test_a_deployment_that_was_just_applied_waits_for_its_controller() -> None:
    message = progressing(make_spec(), None, seen(observed=False)).message
    assert message == "the Deployment has been applied; waiting for the Deployment controller"


NO_POD = "no pod is running; the KV cache is judged once a pod has reported its use for 2 minutes"


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        pytest.param(NOTHING, NO_POD, id="no pod"),
        pytest.param(seen(make_pod(terminating=True)), NO_POD, id="a pod that stops"),
        pytest.param(
            seen(make_pod(ready=False, report=None), ready=0), "no pod is ready, so no pod reports its KV cache yet", id="a pod that starts"
        ),
        pytest.param(
            seen(make_pod(report=None)), "the operator has not read the KV cache usage of any pod yet", id="a pod that was not polled yet"
        ),
        pytest.param(
            seen(make_pod(report=None, report_error="refused with 401")),
            "the operator cannot read the KV cache usage of the pods; the condition Degraded says why (StatusUnavailable)",
            id="a poll that fails",
        ),
        pytest.param(
            GOOD,
            "no pod reports its KV cache: the model has none, or the engine's image is of an older release",
            id="a report without a KV cache",
        ),
    ],
)
def test_an_unknown_kv_cache_says_why(observation: Observation, said: str) -> None:
    condition = condition_of(status_of(observation, {}), "KVCacheShort")
    assert (condition["reason"], condition["message"]) == ("NoReports", said)


def test_a_resource_of_which_nothing_was_applied_has_no_url() -> None:
    status = fold(spec=make_spec(), owner=OWNER, generation=1, error=BAD, observation=NOTHING, previous={}, now=NOON)
    assert "url" not in status


def test_a_pods_changing_words_are_no_news() -> None:
    def crash(words: str) -> Observation:
        return seen(make_pod(ready=False, report=None, troubles=(Trouble("PodsCrashing", words),)), ready=0)

    first = status_of(crash("12:00 boom"), {})
    assert changes(first, status_of(crash("12:01 boom"), first)) == []


def test_recovery_is_announced() -> None:
    bad = status_of(GOOD, {}, error=BAD, spec=None)
    assert {one.reason for one in changes(bad, status_of(GOOD, bad))} == {"Serving", "Complete", "AsExpected"}


def test_only_degraded_is_a_warning() -> None:
    assert is_warning(Condition("Degraded", "True", "SidecarDown", ""))
    assert not is_warning(Condition("Degraded", "False", "AsExpected", ""))
    assert not is_warning(Condition("Ready", "False", "Starting", ""))
