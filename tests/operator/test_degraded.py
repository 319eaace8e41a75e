"""What is wrong: the reasons of Degraded, what pods report of themselves, and a KV cache that is not known."""

import pytest

from alise_operator.errors import OperatorError
from alise_operator.observation import Observation, Trouble
from alise_operator.status import DEGRADED_ORDER, degraded, progressing, ready
from tests.operator.builders import make_pod, make_report, make_spec, make_workload
from tests.operator.statuses import BAD, GOOD, MIB, NOTHING, condition_of, reported, seen, status_of, troubled


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


def test_the_gravest_trouble_gives_the_reason_and_the_message_has_all() -> None:
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
