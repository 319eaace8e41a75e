"""Children that a person edits, and a spec that is edited ten times at once, by the real operator process against a real API server."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from alise_operator.drift import applied_fields, applied_metadata
from alise_operator.workqueue import BURST, SPACING_SECONDS
from tests.cluster.control_plane import ControlPlane
from tests.operator.control_plane import MANIFESTS, Engine, OperatorProcess, eventually

pytestmark = pytest.mark.controlplane

REPLACE_PORT = [{"op": "replace", "path": "/spec/ports/0/port", "value": 8080}]
OTHER_BOUND = [{"op": "remove", "path": "/spec/maxUnavailable"}, {"op": "add", "path": "/spec/minAvailable", "value": 2}]
OTHER_IMAGE = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "mine:1"}]
OTHER_VOLUME = [{"op": "replace", "path": "/spec/template/spec/volumes/1", "value": {"name": "scratch", "hostPath": {"path": "/"}}}]
OTHER_HOST = [{"op": "replace", "path": "/spec/rules/0/host", "value": "other.test"}]
OTHER_POLICY = [{"op": "replace", "path": "/spec/ingress/0/ports/0/port", "value": 22}]
OTHER_TARGET = [{"op": "replace", "path": "/spec/ports/0/targetPort", "value": 22}]
SHORTER_DRAIN = [{"op": "replace", "path": "/spec/template/spec/terminationGracePeriodSeconds", "value": 1}]


NAMESPACE = "hand-edits"
CHANGED_BY_OTHERS = "a child was changed by another writer and is applied again"
# The event follows what it is about, so a look in between finds none.
MOST_TRIES = 5


@pytest.fixture(scope="module")
def settled(control_plane: ControlPlane, operator: OperatorProcess) -> Iterator[Engine]:
    """An engine with every child that a small one may have, all of them applied. The tests share it."""
    control_plane.access.kubectl("create", "namespace", NAMESPACE)
    engine = Engine(control_plane.access, NAMESPACE)
    engine.apply(replicas=2)
    engine.wait_for_pods(2)
    engine.until("Ready", "False", "Starting")
    yield engine
    control_plane.access.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


class Restored:
    """The events about restored children since the test began."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._before = {one["metadata"]["uid"] for one in self._events()}

    def _events(self) -> list[dict[str, Any]]:
        return [one for one in self._engine.events() if one["reason"] in ("ChildRestored", "ReplicasReset")]

    def messages(self) -> list[str]:
        return [one["message"] for one in self._events() if one["metadata"]["uid"] not in self._before]


@pytest.fixture
def restored(settled: Engine) -> Restored:
    return Restored(settled)


def edit(engine: Engine, kind: str, changes: list[dict[str, Any]]) -> None:
    engine.kubectl("patch", kind, engine.name, "--type=json", "-p", json.dumps(changes))


def edit_until_an_event(engine: Engine, restored: Restored, kind: str, changes: list[dict[str, Any]]) -> str:
    """Edits the child, and again if it was restored without an event: the operator was just writing it. Returns the event's message."""
    before = engine.one(kind)["spec"]

    def messages() -> list[str]:
        if engine.one(kind)["spec"] == before:
            edit(engine, kind, changes)
        return restored.messages()

    (message,) = eventually("an event says so", messages)
    eventually("the child is as before", lambda: engine.one(kind)["spec"] == before)
    return message


@pytest.mark.parametrize(
    ("kind", "changes", "field", "way"),
    [
        pytest.param(
            "deployment",
            OTHER_IMAGE,
            "spec.template.spec.containers[engine].image",
            "change spec.engine.image or spec.podTemplate of the AliseEngine",
            id="the image of the engine",
        ),
        pytest.param(
            "deployment", OTHER_VOLUME, "spec.template.spec.volumes[scratch].emptyDir", "change spec.podTemplate", id="the kind of a volume"
        ),
        pytest.param("service", REPLACE_PORT, "spec.ports[http].port", "create a Service of your own", id="the port of the Service"),
        pytest.param(
            "poddisruptionbudget", OTHER_BOUND, "spec.maxUnavailable", "lets one pod at a time be evicted", id="the bound of the budget"
        ),
        pytest.param("ingresses.networking.k8s.io", OTHER_HOST, "spec.rules", "change spec.route.hosts", id="the host of the route"),
        pytest.param("networkpolicy", OTHER_POLICY, "spec.ingress", "change spec.networkPolicy.from", id="who may connect"),
    ],
)
def test_an_edited_child_is_restored_and_an_event_names_the_field_and_the_right_way(
    settled: Engine, restored: Restored, kind: str, changes: list[dict[str, Any]], field: str, way: str
) -> None:
    before = settled.child(kind)
    message = edit_until_an_event(settled, restored, kind, changes)
    # The API server says who owns a field, and not who has removed one.
    by = "" if changes == OTHER_BOUND else " by kubectl-patch"
    assert message.startswith(f"{before['kind']} tiny was changed{by} and has been restored ({field})")
    assert way in message
    assert settled.condition("Degraded")["status"] == "False"


def test_a_deleted_child_is_created_again_and_an_event_says_so(settled: Engine, restored: Restored) -> None:
    deleted: list[str] = []

    def messages() -> list[str]:
        """Deletes it again if it came back without an event: the operator was just writing it, which it is not all the time."""
        if settled.one("service"):
            deleted.append(settled.kubectl("delete", "service", "tiny"))
            assert len(deleted) <= MOST_TRIES, "it is restored without an event again and again"
        return restored.messages()

    assert eventually("an event says so", messages) == [
        "Service tiny was deleted and has been created again, because the AliseEngine needs it"
    ]
    eventually("the Service is back", lambda: settled.one("service"))


def test_a_writer_that_does_not_give_up_causes_one_event(settled: Engine, restored: Restored) -> None:
    ports = settled.child("service")["spec"]["ports"]
    for _ in range(4):
        edit(settled, "service", OTHER_TARGET)
        eventually("the port is restored", lambda: settled.one("service")["spec"]["ports"] == ports)
    assert len(eventually("an event says so", restored.messages)) == 1


def test_what_is_added_beside_the_operators_fields_stays_and_causes_no_event(settled: Engine, restored: Restored) -> None:
    settled.kubectl("rollout", "restart", "deployment/tiny")
    settled.kubectl("annotate", "service", "tiny", "example.com/cost-centre=7")
    edit(settled, "service", [{"op": "add", "path": "/spec/externalIPs", "value": ["192.0.2.1"]}])
    # A later edit of the operator's fields: once it is restored, the others have been looked at.
    message = edit_until_an_event(settled, restored, "deployment", SHORTER_DRAIN)
    assert "(spec.template.spec.terminationGracePeriodSeconds); change spec.drainSeconds of the AliseEngine" in message
    assert "kubectl.kubernetes.io/restartedAt" in settled.one("deployment")["spec"]["template"]["metadata"]["annotations"]
    assert settled.one("service")["metadata"]["annotations"]["example.com/cost-centre"] == "7"
    assert settled.one("service")["spec"]["externalIPs"] == ["192.0.2.1"]


def test_an_annotation_of_the_operators_is_restored(settled: Engine) -> None:
    kind = "ingresses.networking.k8s.io"
    before = settled.child(kind)["metadata"]["annotations"]
    settled.kubectl("annotate", kind, "tiny", "--overwrite", *(f"{name}=edited" for name in before))
    eventually("the annotations are restored", lambda: settled.one(kind)["metadata"]["annotations"] == before)


def written_over(operator: OperatorProcess, since: int) -> list[str]:
    """The children that the operator's log says are applied again, since this number of lines."""
    return [line["child"] for line in operator.lines()[since:] if line["message"] == CHANGED_BY_OTHERS]


def test_what_another_wrote_under_the_operators_name_is_written_over(settled: Engine, operator: OperatorProcess) -> None:
    """As a request that timed out and is carried out after the next one: the operator owns the same fields as before."""
    before = settled.one("service")
    late: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "tiny"},
        "spec": {key: before["spec"][key] for key in ("ports", "type")},
    }
    late["metadata"] |= {key: before["metadata"][key] for key in ("labels", "ownerReferences")}
    late["spec"]["selector"] = dict.fromkeys(before["spec"]["selector"], "late")
    lines = len(operator.lines())
    arguments = ("apply", "--server-side", "--field-manager=alise-operator", "--force-conflicts", "-f", "-")
    tried = json.loads(settled.kubectl(*arguments, "--dry-run=server", "-o", "jsonpath={$}", text_in=json.dumps(late)))
    assert applied_metadata(tried) == applied_metadata(before)
    assert [entry["fields"] for entry in applied_fields(tried)] == [entry["fields"] for entry in applied_fields(before)]
    # One that comes while the operator is just writing the child is written over without a line.
    for _ in range(MOST_TRIES):
        # The API server notes the second of a write.
        time.sleep(1.1)
        settled.kubectl(*arguments, text_in=json.dumps(late))
        eventually("it is written over", lambda: settled.one("service")["spec"]["selector"] == before["spec"]["selector"])
        if "Service/tiny" in written_over(operator, lines):
            break
    assert "Service/tiny" in written_over(operator, lines)


def test_what_a_controller_adds_to_a_child_does_not_apply_it_again(settled: Engine, operator: OperatorProcess) -> None:
    """As the registry of OpenShift and the token controller of old clusters add to every ServiceAccount."""
    lines = len(operator.lines())
    settled.kubectl("patch", "serviceaccount", "tiny", "--type=merge", "-p", '{"imagePullSecrets": [{"name": "registry"}]}')
    for _ in range(MOST_TRIES):
        # A later edit of the operator's field: once it is restored, the watch has shown both.
        settled.kubectl("patch", "serviceaccount", "tiny", "--type=merge", "-p", '{"automountServiceAccountToken": true}')
        eventually("the field is restored", lambda: settled.one("serviceaccount")["automountServiceAccountToken"] is False)
        if written_over(operator, lines):
            break
    assert written_over(operator, lines) == ["ServiceAccount/tiny"]
    assert settled.one("serviceaccount")["imagePullSecrets"] == [{"name": "registry"}]


def test_a_spec_that_the_cluster_refuses_is_not_applied_in_part_although_others_have_written_to_children(settled: Engine) -> None:
    settled.kubectl("rollout", "restart", "deployment/tiny")
    settled.patch({"podTemplate": {"spec": {"volumes": [{"name": "A B"}]}}, "networkPolicy": {"egress": []}})
    settled.until("Degraded", "True", "ApplyFailed")
    assert settled.one("networkpolicy")["spec"]["policyTypes"] == ["Ingress"]
    settled.patch({"podTemplate": None, "networkPolicy": None})
    settled.until("Degraded", "False", "AsExpected")


def test_the_operators_own_changes_cause_no_event(settled: Engine, restored: Restored) -> None:
    for replicas, seqs in ((1, 3), (3, 4)):
        settled.patch({"replicas": replicas, "engine": {"maxNumSeqs": seqs}, "route": {"hosts": [f"{seqs}.{NAMESPACE}.test"]}})
        settled.until("Ready", "False", "Starting")
    settled.patch({"suspend": True})
    settled.until("Ready", "False", "Suspended")
    assert restored.messages() == []


# --- A spec that is edited again and again ------------------------------------------------------------------------------------------

EDITS = 10
# The first template, and those that the queue lets through at once; then there is a pause between two.
MOST_REPLICASETS = 1 + BURST


def versions(engine: Engine) -> str:
    """The resource in ten versions, one after the other, as one stream for a single kubectl.

    Each has another template of the pods, another number of them, and another host.
    """
    sample = yaml.safe_load((MANIFESTS / "samples" / "tiny.yaml").read_text())
    documents = []
    for number in range(1, EDITS + 1):
        spec = sample["spec"] | {"replicas": 1 + number % 3}
        spec["engine"] = sample["spec"]["engine"] | {"maxNumSeqs": number}
        spec["route"] = sample["spec"]["route"] | {"hosts": [f"{number}.{engine.namespace}.test"]}
        documents.append(json.dumps(sample | {"metadata": {"name": engine.name}, "spec": spec}))
    return "\n".join(documents)


def replica_sets(engine: Engine) -> int:
    return len(engine.kubectl("get", "replicasets", "-l", f"alise.dev/engine={engine.name}", "-o", "name").split())


def test_of_ten_edits_in_a_row_the_last_one_wins_and_pods_are_not_started_for_each(engine: Engine) -> None:
    engine.apply()
    engine.wait_for_pods(1)
    engine.until("Ready", "False", "Starting")
    generation = engine.get()["metadata"]["generation"]
    began = time.monotonic()
    engine.kubectl("apply", "-f", "-", text_in=versions(engine))
    # On a slow machine the edits do not come at once, and the queue lets more of them through.
    pauses = int((time.monotonic() - began) / SPACING_SECONDS)
    assert engine.get()["metadata"]["generation"] == generation + EDITS
    last = eventually(
        "the last edit is reported",
        lambda: found if (found := engine.get())["status"]["observedGeneration"] == generation + EDITS else None,
    )
    workload = engine.one("deployment")["spec"]
    assert "--max-num-seqs=10" in " ".join(workload["template"]["spec"]["containers"][0]["args"]).replace("seqs ", "seqs=")
    assert workload["replicas"] == last["spec"]["replicas"] == 2
    assert engine.one("poddisruptionbudget")["spec"]["maxUnavailable"] == 1
    assert engine.one("ingresses.networking.k8s.io")["spec"]["rules"][0]["host"] == f"10.{engine.namespace}.test"
    assert replica_sets(engine) <= MOST_REPLICASETS + pauses
