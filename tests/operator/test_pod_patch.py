"""The user's patch of the pod template."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alise_operator.build.pod import pod_template
from alise_operator.build.pod_patch import patched
from alise_operator.errors import InvalidSpec
from tests.operator.builders import CURRENT, OWNER, make_spec


def template(patch: dict[str, Any]) -> dict[str, Any]:
    return patched(pod_template(make_spec(), OWNER, CURRENT), patch, OWNER)


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
            {"metadata": {"labels": {"alise.dev/engine": "other"}}}, "must leave alise.dev/engine=tiny", id="another selector label"
        ),
        pytest.param({"metadata": None}, "must leave alise.dev/engine=tiny", id="no labels"),
        pytest.param({"spec": {"containers": None}}, "must keep the container 'engine'", id="no containers"),
        pytest.param({"spec": {"initContainers": None}}, "must keep the container 'scheduler'", id="no sidecar"),
        pytest.param(
            {"spec": {"containers": [{"name": "engine", "volumeMounts": []}]}},
            "must keep the mount /run/alise of container 'engine'",
            id="no sockets",
        ),
        pytest.param({"spec": None}, "must be an object", id="no pod"),
        pytest.param({"metadata": "x"}, "spec.podTemplate.metadata: 'x' is not allowed; it must be an object", id="text for the metadata"),
        pytest.param({"metadata": {"labels": ["a"]}}, "spec.podTemplate.metadata.labels: ['a'] is not allowed", id="a list for labels"),
        pytest.param({"spec": {"containers": 5}}, "spec.podTemplate.spec.containers: 5 is not allowed; it must be a list", id="a number"),
        pytest.param({"spec": {"volumes": {}}}, "spec.podTemplate.spec.volumes: {} is not allowed; it must be a list", id="one volume"),
        pytest.param({"spec": {"containers": [5]}}, "spec.containers[0]: 5 is not allowed", id="a number for a container"),
        pytest.param({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0].name: null is not allowed", id="a nameless container"),
        pytest.param(engine(volumeMounts=5), "spec.containers[engine].volumeMounts: 5 is not allowed", id="a number for mounts"),
        pytest.param(engine(volumeMounts=[5]), "containers[engine].volumeMounts[0]: 5 is not allowed", id="a number for a mount"),
        pytest.param(engine(env={"A": "1"}), "containers[engine].env: {'A': '1'} is not allowed; it must be a list", id="a map for env"),
        pytest.param(engine(lifecycle=5), "containers[engine].lifecycle: 5 is not allowed", id="a number for the hooks"),
        pytest.param(
            {"spec": {"terminationGracePeriodSeconds": 30}},
            "spec.podTemplate.spec.terminationGracePeriodSeconds: 30 would cut streams: it must be 330 or more; lower spec.drainSeconds",
            id="less time than the drain takes",
        ),
        pytest.param({"spec": {"terminationGracePeriodSeconds": None}}, "null would cut streams", id="the cluster's own grace period"),
        pytest.param(
            engine(lifecycle=None),
            "containers[engine].lifecycle.preStop: null would cut streams: leave it out",
            id="no drain of the engine",
        ),
        pytest.param(
            engine(lifecycle={"preStop": {"exec": {"command": ["sleep", "5"]}}}),
            "would cut streams",
            id="another hook in the drain's place",
        ),
        pytest.param(
            {"spec": {"initContainers": [{"name": "scheduler", "lifecycle": None}]}},
            "containers[scheduler].lifecycle.preStop: null would cut streams",
            id="a scheduler that leaves before the engine",
        ),
        pytest.param(
            engine(args=["serve", "x"]), "containers[engine].args: ['serve', 'x'] cannot be set: use spec.engine.args", id="arguments"
        ),
        pytest.param({"spec": "x"}, "spec.podTemplate.spec: 'x' is not allowed; it must be an object", id="text for the pod"),
    ],
)
def test_a_patch_that_breaks_the_pod_is_refused(patch: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        template(patch)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "mounts",
    [
        # A list whose items have no names replaces the generated one.
        pytest.param([{"mountPath": "/run/alise"}], id="gone"),
        pytest.param([{"name": "api-keys", "mountPath": "/elsewhere"}], id="moved"),
        pytest.param([{"name": "api-keys", "subPath": "team-a"}], id="one file of it, which is never updated"),
    ],
)
def test_the_mount_of_the_api_keys_stays_as_it_is(mounts: list[dict[str, Any]]) -> None:
    generated = pod_template(make_spec(auth={"secretRef": {"name": "keys"}}), OWNER, CURRENT)
    with pytest.raises(InvalidSpec, match="must leave the mount /etc/alise/auth as it is: it holds the API keys"):
        patched(generated, engine(volumeMounts=mounts), OWNER)


@pytest.mark.parametrize("value", [pytest.param("", id="empty"), pytest.param("/elsewhere", id="another folder")])
def test_the_variable_that_asks_for_api_keys_stays_as_it_is(value: str) -> None:
    generated = pod_template(make_spec(auth={"secretRef": {"name": "keys"}}), OWNER, CURRENT)
    with pytest.raises(InvalidSpec, match="must leave ALISE_AUTH_DIR as it is: without it no API keys are required"):
        patched(generated, engine(env=[{"name": "ALISE_AUTH_DIR", "value": value}]), OWNER)


def test_more_time_and_a_hook_of_its_own_beside_the_drain_are_the_users_to_set() -> None:
    started = {"exec": {"command": ["true"]}}
    merged = template({"spec": {"terminationGracePeriodSeconds": 900, **engine(lifecycle={"postStart": started})["spec"]}})
    assert merged["spec"]["terminationGracePeriodSeconds"] == 900
    hooks = merged["spec"]["containers"][0]["lifecycle"]
    assert hooks["postStart"] == started
    assert hooks["preStop"]["exec"]["command"][:2] == ["alise-engine", "drain"]


KEYS = ("metadata", "labels", "annotations", "spec", "containers", "initContainers", "volumes", "name", "volumeMounts", "lifecycle", "env")
VALUES = st.none() | st.booleans() | st.integers() | st.sampled_from(["engine", "scheduler", "x", ""])
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
