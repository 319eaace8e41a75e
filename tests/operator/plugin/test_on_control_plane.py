"""The program against a real API server and the real operator: a resource's state, a bundle, and every way to fail."""

import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.control_plane import Engine, eventually
from tests.operator.plugin.running import alise, environment

pytestmark = pytest.mark.controlplane
SECRET = "hunter2hunter2"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the program with a kubeconfig."""
    return lambda kubeconfig, *arguments: alise(kubeconfig, tmp_path, *arguments)


@pytest.fixture
def served(engine: Engine) -> Engine:
    """A resource with one ready pod, and a secret where a person may have written one."""
    engine.apply()
    (pod,) = engine.wait_for_pods(1)
    engine.make_ready(pod)
    engine.until("Ready", "True", "Serving")
    return engine


def test_status_shows_a_resource_its_pod_and_its_trouble(run: Run, control_plane: ControlPlane, served: Engine) -> None:
    served.patch({"engine": {"kvCacheDtype": "int4"}})
    served.until("Degraded", "True", "InvalidSpec")
    done = run(control_plane.kubeconfig, "status", served.name, "-n", served.namespace)
    (pod,) = served.pods()
    assert done.returncode == 0, done.stderr
    assert f"{served.namespace}/{served.name}: serves requests, 1 of 1 pods are ready." in done.stdout
    assert "Degraded (InvalidSpec): " in done.stdout
    assert "engine.kvCacheDtype" in done.stdout
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith(pod["metadata"]["name"])]
    assert row[1:5] == ["yes", "Running", "0", "newest"]


def test_without_a_name_all_resources_are_listed(run: Run, control_plane: ControlPlane, served: Engine) -> None:
    rows = [line.split() for line in run(control_plane.kubeconfig, "status", "-A").stdout.splitlines()]
    assert [served.namespace, served.name] in [row[:2] for row in rows]


def test_a_bundle_has_the_children_and_no_secret(control_plane: ControlPlane, served: Engine, run: Run, tmp_path: Path) -> None:
    served.kubectl("create", "secret", "generic", "keys", f"--from-literal=team-a={SECRET}")
    served.patch({"engine": {"env": [{"name": "MY_TOKEN", "value": SECRET}]}})
    served.until("Ready", "True", "ServingOldSpec")
    done = run(control_plane.kubeconfig, "support-bundle", served.name, "-n", served.namespace)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / f"alise-{served.name}.tar.gz") as archive:
        files = {member.name: file.read().decode() for member in archive.getmembers() if (file := archive.extractfile(member)) is not None}
    folder = f"alise-{served.name}"
    assert served.get()["metadata"]["uid"] in files[f"{folder}/resource.json"]
    assert '"kind": "Deployment"' in files[f"{folder}/children/deployments.json"]
    assert "MY_TOKEN" in files[f"{folder}/resource.json"]
    assert SECRET not in "".join(files.values())


def test_a_cluster_without_a_kubeconfig_is_named(run: Run, tmp_path: Path) -> None:
    done = run(tmp_path / "nothing", "status")
    assert (done.returncode, done.stderr.startswith("kubectl alise: no cluster is configured: set KUBECONFIG")) == (1, True), done.stderr


@pytest.mark.parametrize("command", [["status"], ["top"], ["explain"], ["support-bundle"]], ids=lambda words: words[0])
def test_a_resource_that_does_not_exist_is_named(run: Run, control_plane: ControlPlane, command: list[str]) -> None:
    arguments = [*command, "nothing", *(["req-7"] if command == ["explain"] else [])]
    done = run(control_plane.kubeconfig, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no AliseEngine nothing in this namespace" in done.stderr


def test_a_pod_that_has_gone_is_named(run: Run, control_plane: ControlPlane) -> None:
    done = run(control_plane.kubeconfig, "drain", "chat-1")
    assert (done.returncode, "there is no pod chat-1 in this namespace, or it has ended" in done.stderr) == (1, True)


def test_a_person_without_the_right_is_told_which_one(run: Run, control_plane: ControlPlane, served: Engine) -> None:
    without_rights = control_plane.kubeconfig_for(served.namespace, "default")
    done = run(without_rights, "status", served.name, "-n", served.namespace)
    assert done.returncode == 1
    assert 'cannot get resource "aliseengines"' in done.stderr
    assert "Ask for the right" in done.stderr


def test_the_only_ready_pod_is_not_drained_without_force(run: Run, control_plane: ControlPlane, served: Engine) -> None:
    (pod,) = served.pods()
    done = run(control_plane.kubeconfig, "drain", pod["metadata"]["name"], "-n", served.namespace)
    assert (done.returncode, "is the only ready pod of tiny" in done.stderr) == (1, True)
    assert "deletionTimestamp" not in served.pods()[0]["metadata"]


def test_a_drained_pod_is_evicted_by_the_api_of_this_cluster(run: Run, control_plane: ControlPlane, served: Engine) -> None:
    (pod,) = served.pods()
    done = run(control_plane.kubeconfig, "drain", pod["metadata"]["name"], "-n", served.namespace, "--force", "--no-wait")
    assert done.returncode == 0, done.stderr
    left = {one["metadata"]["uid"] for one in served.pods() if "deletionTimestamp" not in one["metadata"]}
    assert pod["metadata"]["uid"] not in left


def test_names_are_completed_from_the_cluster(control_plane: ControlPlane, served: Engine, tmp_path: Path) -> None:
    env = environment(control_plane.kubeconfig, tmp_path)
    program = "import sys; from kubectl_alise.__main__ import complete; sys.exit(complete())"
    words = ["status", "-n", served.namespace, "ti"]

    def completed() -> bool:
        """A cluster that takes seconds to answer completes nothing; a person asks again."""
        done = subprocess.run([sys.executable, "-c", program, *words], env=env, capture_output=True, text=True, timeout=60, check=False)
        said.append(done.stdout.splitlines())
        return said[-1] == ["tiny", ":4"]

    said: list[list[str]] = []
    eventually("the name is completed", completed)
    assert {tuple(one) for one in said} <= {("tiny", ":4"), (":4",)}


def test_an_operator_that_is_not_there_has_no_page(run: Run, control_plane: ControlPlane, namespace: str) -> None:
    done = run(control_plane.kubeconfig, "ui", "--no-browser", "--port=0", "-n", namespace)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"there is no operator in the namespace {namespace}: give its namespace with -n" in done.stderr


def test_a_person_who_may_not_look_at_the_operator_is_told_which_right_is_missing(
    run: Run, control_plane: ControlPlane, namespace: str
) -> None:
    done = run(control_plane.kubeconfig_for(namespace, "default"), "ui", "--no-browser", "--port=0")
    assert (done.returncode, 'cannot list resource "pods"' in done.stderr) == (1, True), done.stderr


def test_a_port_that_cannot_be_forwarded_ends_the_page_with_the_reason(run: Run, control_plane: ControlPlane, namespace: str) -> None:
    """No kubelet runs this pod, so nothing forwards its port."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "op-1", "namespace": namespace, "labels": {"app.kubernetes.io/name": "alise-operator"}},
        "spec": {"containers": [{"name": "operator", "image": "x"}]},
    }
    control_plane.access.apply(pod)
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    control_plane.access.patch(f"/api/v1/namespaces/{namespace}/pods/op-1/status", {"status": ready})
    done = run(control_plane.kubeconfig, "ui", "--no-browser", "--port=0", "-n", namespace)
    assert (done.returncode, done.stdout) == (1, "")
    assert "kubectl failed: " in done.stderr
    assert "op-1" in done.stderr
