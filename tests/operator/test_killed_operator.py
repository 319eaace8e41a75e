"""A real operator that is killed between two writes, and one that has just started, on a real API server."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alise_operator.lease import LEASE_NAME
from tests.cluster.control_plane import ControlPlane
from tests.cluster.gateway import gateway_api
from tests.operator.control_plane import Engine, Object, eventually, install, install_into, operator_environment, running_operator
from tests.operator.dying_operator import DIE_AT_WRITE

pytestmark = pytest.mark.controlplane

ALL_KINDS = ("serviceaccount", "networkpolicy", "service", "poddisruptionbudget", "deployment", "ingresses.networking.k8s.io")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane without an operator."""
    with ControlPlane() as cp:
        install(cp)
        yield cp


@pytest.fixture
def engine(plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine that is not applied yet, in a namespace with the rights of an operator for it alone."""
    name = f"k-{abs(hash(request.node.nodeid)) % 10**10}"
    plane.access.kubectl("create", "namespace", name)
    install_into(plane, name)
    yield Engine(plane.access, name)
    plane.access.kubectl("delete", "namespace", name, "--wait=false")


def kill_operator_at_write(plane: ControlPlane, engine: Engine, number: int) -> tuple[str, ...]:
    """Runs an operator that ends as by SIGKILL right before this write, and returns the kinds of the children that exist then."""
    env = operator_environment(plane, engine.namespace) | {DIE_AT_WRITE: str(number)}
    ended = subprocess.run([sys.executable, "-m", "tests.operator.dying_operator"], env=env, timeout=180, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
    # It would run out by itself; that another operator waits for it is another test's.
    engine.kubectl("delete", "lease", LEASE_NAME)
    return tuple(kind for kind in ALL_KINDS if engine.one(kind))


def test_an_operator_killed_at_any_write_is_followed_by_one_that_finishes(plane: ControlPlane, engine: Engine, tmp_path: Path) -> None:
    engine.apply(replicas=2)
    # Six dry runs, six children, and the status.
    existing = [kill_operator_at_write(plane, engine, number) for number in (7, 9, 12, 13)]
    assert existing == [(), ALL_KINDS[:2], ALL_KINDS[:5], ALL_KINDS]
    # Four dry runs, four children, and two that are not wanted any more.
    engine.apply(replicas=1, route={"type": "None"}, drainSeconds=7)
    existing = [kill_operator_at_write(plane, engine, number) for number in (8, 10)]
    assert existing == [ALL_KINDS, (*ALL_KINDS[:3], *ALL_KINDS[4:])]
    with running_operator(plane, tmp_path, namespace=engine.namespace) as operator:
        engine.until("Ready", "False", "Starting")
        assert [kind for kind in ALL_KINDS if engine.one(kind)] == [*ALL_KINDS[:3], "deployment"]
        template = engine.child("deployment")["spec"]["template"]
        assert template["spec"]["terminationGracePeriodSeconds"] == 7 + 30
        assert engine.child("deployment")["spec"]["replicas"] == 1
        assert operator.reconciles("bug") == 0


def test_an_edited_httproute_is_restored_and_an_event_names_the_right_way(plane: ControlPlane, engine: Engine, tmp_path: Path) -> None:
    gateway_api.ensure(plane.access, belongs_to_user=plane.belongs_to_user)
    plane.access.apply(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "g", "namespace": engine.namespace},
            "spec": {"gatewayClassName": "c", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        }
    )
    with running_operator(plane, tmp_path, namespace=engine.namespace):
        engine.apply(route={"type": "HTTPRoute", "hosts": ["a.b"], "parentRef": {"name": "g"}}, networkPolicy={"enabled": False})
        before = engine.child("httproutes.gateway.networking.k8s.io")["spec"]
        engine.until("Ready", "False", "Starting")

        def edited() -> list[Object]:
            """An edit that comes before the new operator watches the kind is restored without an event."""
            change = json.dumps({"spec": {"hostnames": ["c.d"]}})
            engine.kubectl("patch", "httproutes.gateway.networking.k8s.io", "tiny", "--type=merge", "-p", change)
            return [one for one in engine.events() if one["reason"] == "ChildRestored"]

        (event,) = eventually("an event says so", edited)
        assert event["message"].startswith(
            "HTTPRoute tiny was changed by kubectl-patch and has been restored (spec.hostnames); change spec.route.hosts"
        )
        eventually("the route is restored", lambda: engine.child("httproutes.gateway.networking.k8s.io")["spec"] == before)
