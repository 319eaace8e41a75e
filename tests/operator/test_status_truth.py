"""What the conditions say together: a mistake, a missing Secret or a route that leads nowhere, while pods serve."""

from alise_operator.errors import ApplyError, ClusterError
from alise_operator.observation import Trouble, not_starting
from alise_operator.route_ready import Lookup, Way
from alise_operator.status import changes
from tests.operator.builders import make_pod, make_spec
from tests.operator.statuses import BAD, GOOD, NOTHING, condition_of, rolling, seen, status_of


def test_a_secret_that_pods_wait_for_is_named_once_with_the_field_that_asks_for_it() -> None:
    spec = make_spec(model={"uri": "a/b", "tokenSecretRef": {"name": "hub"}})
    waiting = [
        make_pod(
            name=f"tiny-{number}", ready=False, report=None, troubles=(not_starting(f"pod tiny-{number}", "x", 'secret "hub" not found'),)
        )
        for number in range(3)
    ]
    status = status_of(seen(*waiting, ready=0), {}, spec=spec)
    message = (
        "spec.model.tokenSecretRef: Secret default/hub does not exist; create it: kubectl create secret generic hub -n default "
        "--from-literal=token=…; the pod starts by itself once the Secret exists"
    )
    assert (condition_of(status, "Degraded")["reason"], condition_of(status, "Degraded")["message"]) == ("MissingSecret", message)
    assert condition_of(status, "Ready")["reason"] == "MissingSecret"


def test_a_missing_secret_of_a_rollout_leaves_the_engine_ready() -> None:
    new = make_pod(name="tiny-2", ready=False, report=None, template="new", troubles=(Trouble("MissingSecret", "create it"),))
    status = status_of(rolling(new), {})
    assert (condition_of(status, "Ready")["status"], condition_of(status, "Ready")["reason"]) == ("True", "ServingOldSpec")
    assert condition_of(status, "Degraded")["reason"] == condition_of(status, "Progressing")["reason"] == "MissingSecret"


def test_a_cluster_that_fails_after_a_spec_was_refused_does_not_make_it_applied() -> None:
    refused = status_of(GOOD, {}, error=ApplyError("quota"))
    failing = status_of(GOOD, refused, error=ClusterError("webhook", status=500))
    assert condition_of(failing, "Ready")["reason"] == "ServingOldSpec"


def test_a_route_that_leads_nowhere_degrades_and_hides_the_url_and_the_engine_stays_ready() -> None:
    spec = make_spec(route={"type": "HTTPRoute", "hosts": ["a.b"], "parentRef": {"name": "g"}})
    status = status_of(GOOD, {}, spec=spec, way=Way(gateway=Lookup(known=True)))
    assert condition_of(status, "Ready")["status"] == "True"
    assert (condition_of(status, "RouteReady")["status"], condition_of(status, "RouteReady")["reason"]) == ("False", "MissingGateway")
    assert condition_of(status, "Degraded")["reason"] == "MissingGateway"
    assert condition_of(status, "Degraded")["message"] == condition_of(status, "RouteReady")["message"]
    assert "url" not in status
    assert [one.type for one in changes({}, status) if one.reason == "MissingGateway"] == ["Degraded"]


def test_a_route_stays_as_it_was_while_the_spec_cannot_be_read() -> None:
    spec = make_spec(route={"type": "HTTPRoute", "hosts": ["a.b"], "parentRef": {"name": "g"}})
    first = status_of(GOOD, {}, spec=spec, way=Way(gateway=Lookup(known=True)))
    later = status_of(GOOD, first, spec=None, way=None, error=BAD)
    assert condition_of(later, "RouteReady")["reason"] == "MissingGateway"
    assert "url" not in later


def test_degraded_has_the_complete_message_and_other_conditions_its_first_clause() -> None:
    refusal = "the cluster refused Ingress tiny, whose value comes from spec.route.hosts: a.b is not allowed here"
    spec = make_spec(route={"type": "Ingress", "hosts": ["a.b"], "className": "x"})
    status = status_of(NOTHING, {}, spec=spec, error=ApplyError(f"{refusal}; {'hosts need two dots, ' * 5}"))
    assert condition_of(status, "Degraded")["message"].endswith("hosts need two dots, " * 5)
    assert condition_of(status, "Ready")["message"] == f"no pods are running; {refusal}; see the condition Degraded"
    assert condition_of(status, "RouteReady")["message"] == (f"there is no Ingress default/tiny yet: {refusal}; see the condition Degraded")
