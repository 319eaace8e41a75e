"""What the kubelet says of a Secret becomes the field that asks for it and the command that creates it."""

from typing import Any

import pytest

from alise_operator.missing_secrets import Gap, explain, gap
from tests.operator.builders import OWNER, make_spec


@pytest.mark.parametrize(
    ("words", "found"),
    [
        pytest.param('secret "hub" not found', Gap("hub"), id="a variable whose Secret is not there"),
        pytest.param("couldn't find key token in Secret default/hub", Gap("hub", "token"), id="a variable whose key is not there"),
        pytest.param('MountVolume.SetUp failed for volume "api-keys" : secret "keys" not found', Gap("keys"), id="a volume"),
        pytest.param('configmap "hub" not found', None, id="a ConfigMap"),
        pytest.param("couldn't find key token in ConfigMap default/hub", None, id="a key of a ConfigMap"),
        pytest.param("", None, id="no words"),
    ],
)
def test_what_the_kubelet_does_not_find(words: str, found: Gap | None) -> None:
    assert gap(words) == found


POSTGRES = {"dsnSecretRef": {"name": "lengths"}, "keySecretRef": {"name": "lengths"}}
PATCHED = {
    "spec": {
        "containers": [{"name": "engine", "envFrom": [{"secretRef": {"name": "more"}}]}],
        "volumes": [{"name": "v", "secret": {"secretName": "files"}}],
    }
}


@pytest.mark.parametrize(
    ("spec", "missing", "said"),
    [
        pytest.param(
            {"model": {"uri": "a/b", "tokenSecretRef": {"name": "hub"}}},
            Gap("hub"),
            "spec.model.tokenSecretRef: Secret default/hub does not exist; create it: kubectl create secret generic hub -n default "
            "--from-literal=token=…",
            id="the hub's token",
        ),
        pytest.param(
            {"model": {"uri": "a/b", "tokenSecretRef": {"name": "hub"}}},
            Gap("hub", "token"),
            "spec.model.tokenSecretRef: Secret default/hub has no key 'token'; add it (kubectl patch secret hub -n default -p "
            '\'{"stringData": {"token": "…"}}\'), or name another key; the pod starts by itself after that',
            id="a key of the hub's Secret",
        ),
        pytest.param(
            {"predictor": {"history": {"postgres": POSTGRES}}},
            Gap("lengths", "key"),
            "spec.predictor.history.postgres.keySecretRef: Secret default/lengths has no key 'key'",
            id="of two fields that name the Secret, the one with the key",
        ),
        pytest.param(
            {"auth": {"secretRef": {"name": "keys"}}},
            Gap("keys"),
            "spec.auth.secretRef: Secret default/keys does not exist; create it: kubectl create secret generic keys -n default "
            "--from-literal=TENANT=… (one entry per tenant: the entry's name is the tenant's name, and its value holds the tenant's API "
            "keys, one per line); the pod starts by itself once the Secret exists",
            id="API keys",
        ),
        pytest.param(
            {"engine": {"device": "cpu", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]}},
            Gap("x"),
            "spec.engine.env[0]: Secret default/x does not exist; create it: kubectl create secret generic x -n default --from-literal=y=…",
            id="a variable",
        ),
        pytest.param(
            {"podTemplate": PATCHED}, Gap("more"), "spec.podTemplate.spec.containers[engine].envFrom[0]: Secret default/more", id="a patch"
        ),
        pytest.param(
            {"podTemplate": PATCHED}, Gap("files"), "spec.podTemplate.spec.volumes[v]: Secret default/files", id="a patch's volume"
        ),
        pytest.param({}, Gap("older"), "Secret default/older does not exist; create it:", id="a Secret of a spec that is not the newest"),
    ],
)
def test_the_field_and_the_way_out_are_named(spec: dict[str, Any], missing: Gap, said: str) -> None:
    assert explain(missing, make_spec(**spec), OWNER).startswith(said)


def test_without_a_readable_spec_the_secret_is_named_all_the_same() -> None:
    assert explain(Gap("hub"), None, OWNER).startswith("Secret default/hub does not exist; create it: kubectl create secret generic hub")
