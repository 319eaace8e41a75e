"""The user's patch of the pod template."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alise_operator.children.pod import pod_template
from alise_operator.children.pod_patch import patched
from alise_operator.cluster import Cluster
from alise_operator.errors import InvalidSpec
from tests.operator.builders import CURRENT, OLD, OWNER, make_spec


def template(patch: dict[str, Any], cluster: Cluster = CURRENT, **changes: Any) -> dict[str, Any]:
    spec = make_spec(podTemplate=patch, **changes)
    return patched(pod_template(spec, OWNER, cluster), spec, OWNER, cluster)


def engine(**fields: Any) -> dict[str, Any]:
    """A patch of the engine's container."""
    return {"spec": {"containers": [{"name": "engine", **fields}]}}


def test_a_patch_merges_into_the_pod_and_its_containers_by_name() -> None:
    patch = {
        "metadata": {"annotations": {"team": "ml"}},
        "spec": {
            "priorityClassName": "high",
            "topologySpreadConstraints": None,
            "containers": [{"name": "engine", "imagePullPolicy": "Always"}, {"name": "extra", "image": "x"}],
        },
    }
    merged = template(patch)
    assert merged["metadata"]["annotations"]["team"] == "ml"
    assert merged["metadata"]["labels"]["alise.dev/engine"] == "tiny"
    assert merged["spec"]["priorityClassName"] == "high"
    assert "topologySpreadConstraints" not in merged["spec"]
    engine, extra = merged["spec"]["containers"]
    assert (engine["imagePullPolicy"], engine["command"]) == ("Always", ["tini", "--", "alise-engine"])
    assert extra["name"] == "extra"


def test_a_patch_names_the_secrets_that_images_are_pulled_with() -> None:
    assert template({"spec": {"imagePullSecrets": [{"name": "regcred"}]}})["spec"]["imagePullSecrets"] == [{"name": "regcred"}]


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        pytest.param(
            {"metadata": {"labels": {"alise.dev/engine": "other"}}}, "must keep alise.dev/engine=tiny", id="another selector label"
        ),
        pytest.param({"metadata": None}, "must keep alise.dev/engine=tiny", id="no labels"),
        pytest.param({"spec": {"containers": None}}, "must keep the container 'engine'", id="no containers"),
        pytest.param({"spec": {"initContainers": None}}, "must keep the container 'scheduler'", id="no sidecar"),
        pytest.param(
            engine(volumeMounts=[{"mountPath": "/run/alise", "$patch": "delete"}]),
            "containers[engine].volumeMounts: must keep the mount /run/alise unchanged, because it holds the sockets",
            id="no sockets",
        ),
        pytest.param(engine(volumeMounts=None), "must keep the mount /scratch", id="no mounts"),
        pytest.param(
            engine(volumeMounts=[{"mountPath": "/scratch", "readOnly": True}]),
            "volumeMounts[/scratch].readOnly: true is not allowed, because the engine writes there",
            id="scratch space that cannot be written to",
        ),
        pytest.param(
            engine(volumeMounts=[{"name": "data", "mountPath": "/run/alise/"}]),
            "would hide /run/alise",
            id="the sockets' path, spelt otherwise",
        ),
        pytest.param(engine(volumeMounts=[{"name": "x", "mountPath": "//scratch"}]), "would hide /scratch", id="a path with two slashes"),
        pytest.param(
            {"spec": {"volumes": [{"name": "run", "persistentVolumeClaim": {"claimName": "c"}}]}},
            "spec.volumes[run]: must stay unchanged, because it holds the sockets",
            id="sockets in a claim",
        ),
        pytest.param(
            {"spec": {"volumes": [{"name": "scratch", "$patch": "delete"}]}}, "must keep the volume 'scratch'", id="no scratch volume"
        ),
        pytest.param(
            engine(ports=[{"containerPort": 8000, "$patch": "delete"}]), "must keep the port http (8000)", id="no port for the probes"
        ),
        pytest.param(
            engine(ports=[{"containerPort": 8000, "name": "web"}]), "must keep the port http (8000)", id="another name of the port"
        ),
        pytest.param(
            engine(env=[{"name": "HOME", "value": "/x"}]),
            "must keep HOME unchanged, because the operator sets it",
            id="a home that is not there",
        ),
        pytest.param(
            engine(env=[{"name": "ALISE_MAX_PENDING", "value": "9"}]), "use spec.admission.maxPending", id="a limit that has a field"
        ),
        pytest.param(
            {"spec": {"initContainers": [{"name": "scheduler", "env": [{"name": "ALISE_POLICY", "$patch": "delete"}]}]}},
            "initContainers[scheduler].env: must keep ALISE_POLICY unchanged",
            id="no policy",
        ),
        pytest.param(
            engine(env=[{"name": "VLLM_USE_RUST_FRONTEND", "value": "1"}]),
            "VLLM_USE_RUST_FRONTEND=1: alise runs in vLLM's Python API server",
            id="a server without alise",
        ),
        pytest.param(
            engine(resources={"limits": {"memory": "1Gi"}}),
            "spec.podTemplate.spec.containers[engine].resources.limits.memory: '1Gi' is below 3344Mi",
            id="less memory than is needed",
        ),
        pytest.param(
            {"spec": {"initContainers": [{"name": "scheduler", "resources": {"limits": {"memory": "100Mi"}}}]}},
            "initContainers[scheduler].resources.limits.memory: '100Mi' is below 192Mi, which the scheduler needs to start",
            id="less memory than the scheduler needs",
        ),
        pytest.param(
            engine(resources={"limits": {"memory": "1Gi"}}),
            "lower spec.kvOffload.hostMemory; the model's weights need memory in addition to this",
            id="weights are not in the sum",
        ),
        pytest.param(
            {"spec": {"initContainers": [{"name": "scheduler", "restartPolicy": None}]}},
            "restartPolicy: null cannot be set, because the scheduler runs as long as the pod",
            id="a scheduler that the engine would wait for",
        ),
        pytest.param({"spec": {"ephemeralContainers": [{"name": "x"}]}}, "use kubectl debug", id="a container for debugging"),
        pytest.param({"$patch": "replace", "spec": {}}, "spec.podTemplate.$patch: 'replace' is not allowed", id="all of it replaced"),
        pytest.param(
            {"spec": {"$setElementOrder/containers": []}},
            "spec.$setElementOrder/containers: is a directive that is not supported",
            id="an order of lists",
        ),
        pytest.param(
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}},
            "is a directive that is not supported; leave it out: write the list as it should be",
            id="items to delete from a plain list",
        ),
        pytest.param(
            {"spec": {"$retainKeys": ["volumes"], "containers": []}},
            'spec.$retainKeys: ["volumes"] is not allowed; it must list every field that stays',
            id="fields to retain without those of the patch",
        ),
        pytest.param(
            engine(env=[{"name": "A", "$patch": "remove"}]), "'remove' is not allowed; use delete or replace", id="no such directive"
        ),
        pytest.param(
            engine(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), "env[A]: is listed twice; keep one", id="an item twice"
        ),
        pytest.param(
            engine(volumeMounts=[{"name": "x"}]), "volumeMounts[0].mountPath: null is not allowed", id="a mount that does not say where"
        ),
        pytest.param(
            engine(ports=[{"containerPort": "8000"}]),
            "ports[0].containerPort: '8000' is not allowed; it must be the number",
            id="text for a port",
        ),
        pytest.param(
            {"spec": {"topologySpreadConstraints": [{"topologyKey": "zone"}]}},
            "topologySpreadConstraints[0].whenUnsatisfiable: null is not allowed",
            id="half of an item's keys",
        ),
        pytest.param({"spec": None}, "must be an object", id="no pod"),
        pytest.param({"metadata": "x"}, "spec.podTemplate.metadata: 'x' is not allowed; it must be an object", id="text for the metadata"),
        pytest.param({"metadata": {"labels": ["a"]}}, 'spec.podTemplate.metadata.labels: ["a"] is not allowed', id="a list for labels"),
        pytest.param({"spec": {"containers": 5}}, "spec.podTemplate.spec.containers: 5 is not allowed; it must be a list", id="a number"),
        pytest.param({"spec": {"volumes": {}}}, "spec.podTemplate.spec.volumes: {} is not allowed; it must be a list", id="one volume"),
        pytest.param({"spec": {"containers": [5]}}, "spec.containers[0]: 5 is not allowed", id="a number for a container"),
        pytest.param({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0].name: null is not allowed", id="a nameless container"),
        pytest.param(engine(volumeMounts=5), "spec.containers[engine].volumeMounts: 5 is not allowed", id="a number for mounts"),
        pytest.param(engine(volumeMounts=[5]), "containers[engine].volumeMounts[0]: 5 is not allowed", id="a number for a mount"),
        pytest.param(engine(env={"A": "1"}), 'containers[engine].env: {"A": "1"} is not allowed; it must be a list', id="a map for env"),
        pytest.param(engine(lifecycle=5), "containers[engine].lifecycle: 5 is not allowed", id="a number for the hooks"),
        pytest.param(
            {"spec": {"terminationGracePeriodSeconds": 30}},
            "spec.terminationGracePeriodSeconds: 30 would cut off streams: it must be 330 or more; lower spec.drainSeconds",
            id="less time than the drain takes",
        ),
        pytest.param({"spec": {"terminationGracePeriodSeconds": None}}, "null would cut off streams", id="the cluster's own grace period"),
        pytest.param(
            engine(lifecycle=None),
            "containers[engine].lifecycle.preStop: null would cut off streams: leave it out",
            id="no drain of the engine",
        ),
        pytest.param(
            engine(lifecycle={"preStop": {"exec": {"command": ["sleep", "5"]}}}),
            "would cut off streams",
            id="another hook in the drain's place",
        ),
        pytest.param(
            {"spec": {"initContainers": [{"name": "scheduler", "lifecycle": None}]}},
            "initContainers[scheduler].lifecycle.preStop: null would cut off streams",
            id="a scheduler that leaves before the engine",
        ),
        pytest.param(
            engine(args=["serve", "x"]),
            'containers[engine].args: ["serve", "x"] cannot be set, because the operator starts the engine with its own arguments. Leave '
            "it out: flags go into spec.engine.args",
            id="arguments",
        ),
        pytest.param(
            engine(command=["sh"]),
            'containers[engine].command: ["sh"] cannot be set, because the operator starts the engine with its own command. Leave it out: '
            "flags go into spec.engine.args, variables into spec.engine.env, another image into spec.engine.image",
            id="a command",
        ),
        pytest.param(
            {"spec": {"initContainers": [{"name": "scheduler", "command": ["sh"]}]}},
            "because the operator starts the scheduler with its own command. Leave it out: settings go into spec.scheduling",
            id="a command of the scheduler",
        ),
        pytest.param({"spec": "x"}, "spec.podTemplate.spec: 'x' is not allowed; it must be an object", id="text for the pod"),
    ],
)
def test_a_patch_that_breaks_the_pod_is_refused(patch: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        template(patch)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "mount",
    [
        pytest.param({"$patch": "delete"}, id="gone"),
        pytest.param({"name": "scratch"}, id="another volume"),
        pytest.param({"subPath": "team-a"}, id="one file of it, which is never updated"),
    ],
)
def test_the_mount_of_the_api_keys_stays_as_it_is(mount: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec, match="must keep the mount /etc/alise/auth unchanged, because it holds the API keys"):
        template(engine(volumeMounts=[{"mountPath": "/etc/alise/auth", **mount}]), auth={"secretRef": {"name": "keys"}})


def test_the_volume_of_the_api_keys_stays_as_it_is() -> None:
    patch = {"spec": {"volumes": [{"name": "api-keys", "emptyDir": {}}]}}
    with pytest.raises(InvalidSpec, match=r"spec.volumes\[api-keys\]: must stay unchanged, because it holds the API keys"):
        template(patch, auth={"secretRef": {"name": "keys"}})


@pytest.mark.parametrize("value", [pytest.param("", id="empty"), pytest.param("/elsewhere", id="another folder")])
def test_the_variable_that_asks_for_api_keys_stays_as_it_is(value: str) -> None:
    with pytest.raises(InvalidSpec, match="must keep ALISE_AUTH_DIR unchanged, because without it no API keys are required"):
        template(engine(env=[{"name": "ALISE_AUTH_DIR", "value": value}]), auth={"secretRef": {"name": "keys"}})


def test_more_time_and_a_hook_of_its_own_beside_the_drain_are_the_users_to_set() -> None:
    started = {"exec": {"command": ["true"]}}
    merged = template({"spec": {"terminationGracePeriodSeconds": 900, **engine(lifecycle={"postStart": started})["spec"]}})
    assert merged["spec"]["terminationGracePeriodSeconds"] == 900
    hooks = merged["spec"]["containers"][0]["lifecycle"]
    assert hooks["postStart"] == started
    assert hooks["preStop"]["exec"]["command"][:2] == ["alise-engine", "drain"]


@pytest.mark.parametrize(
    "mounts",
    [
        pytest.param(
            [{"name": "hub", "mountPath": "/data/weights"}, {"name": "hub", "mountPath": "/data/adapters"}], id="a volume of the user"
        ),
        pytest.param([{"name": "scratch", "mountPath": "/var/cache/hub"}], id="the scratch volume"),
        pytest.param([{"name": "shm", "mountPath": "/dev/shm2"}], id="the shared memory"),
    ],
)
def test_a_volume_is_mounted_more_than_once_and_the_pods_own_mounts_stay(mounts: list[dict[str, Any]]) -> None:
    own = template({})["spec"]["containers"][0]["volumeMounts"]
    patch = {"spec": {"volumes": [{"name": "hub", "emptyDir": {}}], **engine(volumeMounts=mounts)["spec"]}}
    assert template(patch)["spec"]["containers"][0]["volumeMounts"] == own + mounts


def test_scratch_space_may_lie_in_another_volume() -> None:
    source = {"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}
    volumes = template({"spec": {"volumes": [{"name": "scratch", **source}]}})["spec"]["volumes"]
    assert {"name": "scratch", **source} in volumes


@pytest.mark.parametrize("cluster", [pytest.param(CURRENT, id="a native sidecar"), pytest.param(OLD, id="a container beside the engine")])
@pytest.mark.parametrize("written", ["containers", "initContainers"])
def test_a_patch_of_the_scheduler_finds_it_wherever_it_is_on_this_cluster(cluster: Cluster, written: str) -> None:
    patch = {"spec": {written: [{"name": "scheduler", "env": [{"name": "ALISE_LOG_LEVEL", "value": "debug"}]}]}}
    plain, after = template({}, cluster)["spec"], template(patch, cluster)["spec"]
    lists = ("containers", "initContainers")
    assert [[one["name"] for one in after.get(key, ())] for key in lists] == [[one["name"] for one in plain.get(key, ())] for key in lists]
    (scheduler,) = [one for key in lists for one in after.get(key, ()) if one["name"] == "scheduler"]
    assert scheduler["env"][-1] == {"name": "ALISE_LOG_LEVEL", "value": "debug"}


def test_both_lists_of_a_patch_may_name_the_same_container() -> None:
    debug, image = {"env": [{"name": "ALISE_LOG_LEVEL", "value": "debug"}]}, {"image": "x"}
    patch = {"spec": {"containers": [{"name": "scheduler", **debug}], "initContainers": [{"name": "scheduler", **image}]}}
    (scheduler,) = template(patch)["spec"]["initContainers"]
    assert (scheduler["image"], scheduler["env"][-1]) == ("x", debug["env"][0])


KEYS = [
    *("metadata", "labels", "annotations", "spec", "containers", "initContainers", "volumes", "name", "volumeMounts", "mountPath"),
    *("lifecycle", "env", "ports", "containerPort", "securityContext", "resources", "limits", "$patch", "$retainKeys"),
]
VALUES = st.none() | st.booleans() | st.integers() | st.sampled_from(["engine", "scheduler", "x", "", "delete", "replace"])
PATCHES = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4), max_leaves=12
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["metadata", "spec"]), PATCHES))
def test_whatever_the_patch_it_is_merged_or_refused_in_words(patch: dict[str, Any]) -> None:
    try:
        said, labels = "", template(patch)["metadata"]["labels"]
    except InvalidSpec as error:
        said, labels = str(error), {}
    assert "spec.podTemplate" in said or labels["alise.dev/engine"] == "tiny"
