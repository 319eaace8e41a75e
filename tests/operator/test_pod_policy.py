"""What no pod may have: refused by default in words that name the field and the setting that allows it."""

from typing import Any

import pytest

from alise_operator.allowed import SETTING, TERMS, VOLUME_TYPES, Allowed, read_allowed
from alise_operator.children.pod import pod_template
from alise_operator.children.pod_patch import patched
from alise_operator.children.pod_policy import policy_problems
from alise_operator.cluster import Cluster, Images
from alise_operator.errors import InvalidSpec
from alise_operator.reconcile import Reconciler
from alise_operator.settings import ConfigError, load
from tests.operator.builders import CURRENT, OLD, OWNER, make_spec, raw_spec
from tests.operator.built import SPECS
from tests.operator.world import KEY, World


def template(patch: dict[str, Any], setting: str = "", **changes: Any) -> dict[str, Any]:
    spec = make_spec(podTemplate=patch, **changes)
    cluster = Cluster(CURRENT.minor, CURRENT.apis, allowed=read_allowed(setting))
    return patched(pod_template(spec, OWNER, cluster), spec, OWNER, cluster)


def pod(**fields: Any) -> dict[str, Any]:
    return {"spec": fields}


def engine(**fields: Any) -> dict[str, Any]:
    return pod(containers=[{"name": "engine", **fields}])


def secured(**fields: Any) -> dict[str, Any]:
    return engine(securityContext=fields)


def volume(**source: Any) -> dict[str, Any]:
    return pod(volumes=[{"name": "x", **source}])


REFUSED = [
    pytest.param(volume(hostPath={"path": "/"}), "spec.volumes[x].hostPath", "hostPath=/", id="a path of the node"),
    pytest.param(volume(csi={"driver": "d"}), "spec.volumes[x].csi", "csi=d", id="a driver's volume"),
    pytest.param(volume(nfs={"server": "s", "path": "/"}), "spec.volumes[x].nfs", "nfs", id="another server's folder"),
    pytest.param(
        pod(volumes=[{"name": "scratch", "hostPath": {"path": "/"}}]),
        "spec.volumes[scratch].hostPath",
        "hostPath=/",
        id="a path of the node in place of a volume of alise's",
    ),
    pytest.param(pod(hostNetwork=True), "spec.hostNetwork", "hostNetwork", id="the node's network"),
    pytest.param(pod(hostPID=True), "spec.hostPID", "hostPID", id="the node's processes"),
    pytest.param(pod(hostIPC=True), "spec.hostIPC", "hostIPC", id="the node's shared memory"),
    pytest.param(pod(nodeName="n"), "spec.nodeName", "nodeName=n", id="a node of the user's choice"),
    pytest.param(
        pod(priorityClassName="system-node-critical"),
        "spec.priorityClassName",
        "priorityClassName=system-node-critical",
        id="the system's rank",
    ),
    pytest.param(pod(serviceAccountName="admin"), "spec.serviceAccountName", "serviceAccountName=admin", id="another account"),
    pytest.param(pod(serviceAccount="admin"), "spec.serviceAccount", "serviceAccountName=admin", id="another account by its old name"),
    pytest.param(pod(automountServiceAccountToken=True), "spec.automountServiceAccountToken", "automountServiceAccountToken", id="a token"),
    pytest.param(
        pod(automountServiceAccountToken=None),
        "spec.automountServiceAccountToken",
        "automountServiceAccountToken",
        id="the account's default",
    ),
    pytest.param(
        volume(projected={"sources": [{"serviceAccountToken": {"path": "t"}}]}),
        "spec.volumes[x].projected.sources[0].serviceAccountToken",
        "serviceAccountToken",
        id="a token in a file",
    ),
    pytest.param(
        volume(projected={"sources": [{"podCertificate": {}}]}),
        "spec.volumes[x].projected.sources[0].podCertificate",
        "podCertificate",
        id="a certificate of the account",
    ),
    pytest.param(
        engine(ports=[{"containerPort": 9, "hostPort": 9}]), "containers[engine].ports[9].hostPort", "hostPort", id="the node's port"
    ),
    pytest.param(
        engine(livenessProbe={"httpGet": {"host": "10.0.0.1"}}), "livenessProbe.httpGet.host", "probeHost", id="a probe of another host"
    ),
    pytest.param(
        engine(lifecycle={"postStart": {"tcpSocket": {"host": "a", "port": 1}}}),
        "lifecycle.postStart.tcpSocket.host",
        "probeHost",
        id="a hook",
    ),
    pytest.param(secured(privileged=True), "containers[engine].securityContext.privileged", "privileged", id="privilege"),
    pytest.param(
        secured(allowPrivilegeEscalation=True),
        "securityContext.allowPrivilegeEscalation",
        "allowPrivilegeEscalation",
        id="a way to privilege",
    ),
    pytest.param(
        secured(allowPrivilegeEscalation=None),
        "securityContext.allowPrivilegeEscalation",
        "allowPrivilegeEscalation",
        id="nothing said of it",
    ),
    pytest.param(secured(capabilities={"add": ["SYS_ADMIN"]}), "capabilities.add", "capabilities=SYS_ADMIN", id="a capability"),
    pytest.param(secured(capabilities={"drop": []}), "capabilities.drop", "capabilities", id="the runtime's capabilities"),
    pytest.param(secured(procMount="Unmasked"), "securityContext.procMount", "procMount", id="all of /proc"),
    pytest.param(secured(runAsUser=0), "containers[engine].securityContext.runAsUser", "runAsUser", id="root in a container"),
    pytest.param(pod(securityContext={"runAsUser": 0}), "spec.securityContext.runAsUser", "runAsUser", id="root in the pod"),
    pytest.param(secured(runAsNonRoot=False), "containers[engine].securityContext.runAsNonRoot", "runAsNonRoot", id="an image's root"),
    pytest.param(pod(securityContext={"runAsNonRoot": None}), "securityContext.runAsNonRoot", "runAsNonRoot", id="nothing said of root"),
    pytest.param(secured(seccompProfile={"type": "Unconfined"}), "seccompProfile.type", "seccompProfile", id="all system calls"),
    pytest.param(pod(securityContext={"seccompProfile": None}), "seccompProfile", "seccompProfile", id="nothing said of system calls"),
    pytest.param(secured(appArmorProfile={"type": "Unconfined"}), "appArmorProfile.type", "appArmorProfile", id="no AppArmor"),
    pytest.param(
        {"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/engine": "unconfined"}}},
        "metadata.annotations[container.apparmor.security.beta.kubernetes.io/engine]",
        "appArmorProfile",
        id="no AppArmor, as of old",
    ),
    pytest.param(secured(seLinuxOptions={"type": "spc_t"}), "seLinuxOptions.type", "seLinuxOptions", id="SELinux's super user"),
    pytest.param(secured(windowsOptions={"hostProcess": True}), "windowsOptions", "windowsOptions", id="a process of a Windows node"),
    pytest.param(
        pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
        "sysctls",
        "sysctls=kernel.msgmax",
        id="the kernel's settings",
    ),
    pytest.param(
        engine(env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        "containers[engine].env[X].valueFrom.secretKeyRef.name",
        "secrets=s",
        id="a Secret in a variable",
    ),
    pytest.param(engine(envFrom=[{"secretRef": {"name": "s"}}]), "envFrom[0].secretRef.name", "secrets=s", id="a Secret in variables"),
    pytest.param(volume(secret={"secretName": "s"}), "spec.volumes[x].secret.secretName", "secrets=s", id="a Secret in a volume"),
    pytest.param(
        volume(projected={"sources": [{"secret": {"name": "s"}}]}),
        "projected.sources[0].secret.name",
        "secrets=s",
        id="a Secret among others",
    ),
    pytest.param(pod(newField=1), "spec.podTemplate.spec.newField", "unknownFields=newField", id="a field that is not known"),
    pytest.param(volume(newSource={}), "spec.volumes[x].newSource", "unknownFields=newSource", id="a source that is not known"),
]


@pytest.mark.parametrize(("patch", "field", "term"), REFUSED)
def test_it_is_refused_with_the_field_and_the_setting(patch: dict[str, Any], field: str, term: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        template(patch)
    refusals = [problem for problem in caught.value.problems if problem.field.endswith(field)]
    assert refusals, str(caught.value)
    asked = f". Otherwise ask the operator's administrator to allow it: add {term} to the comma-separated list {SETTING} in the environment"
    assert all(asked in problem.text for problem in refusals)
    assert all(problem.text.endswith("in the environment of the operator's Deployment") for problem in refusals)


@pytest.mark.parametrize(("patch", "field", "term"), REFUSED)
def test_the_setting_allows_what_the_refusal_says(patch: dict[str, Any], field: str, term: str) -> None:
    assert template(patch, term)
    assert template(patch, term.partition("=")[0])


@pytest.mark.parametrize("term", ["hostPath=/srv", "hostPath=/srv/models/x"])
def test_a_value_in_the_setting_allows_no_other_value(term: str) -> None:
    with pytest.raises(InvalidSpec, match=f"add hostPath=/srv/models to the comma-separated list {SETTING} in"):
        template(volume(hostPath={"path": "/srv/models"}), term)


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param(volume(persistentVolumeClaim={"claimName": "c"}), id="a claim"),
        pytest.param(volume(image={"reference": "x"}), id="an image as a volume"),
        pytest.param(volume(configMap={"name": "c"}), id="a ConfigMap"),
        pytest.param(volume(projected={"sources": [{"configMap": {"name": "c"}}, {"downwardAPI": {}}]}), id="several sources"),
        pytest.param(pod(imagePullSecrets=[{"name": "regcred"}]), id="Secrets that images are pulled with, which no container sees"),
        pytest.param(pod(priorityClassName="high", tolerations=[{"operator": "Exists"}], runtimeClassName="nvidia"), id="placement"),
        pytest.param(secured(capabilities={"add": ["NET_BIND_SERVICE"]}), id="the capability that the standard allows"),
        pytest.param(secured(seccompProfile={"type": "Localhost", "localhostProfile": "x"}), id="a profile of the node"),
        pytest.param(pod(securityContext={"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}), id="settings of the pod alone"),
        pytest.param(pod(securityContext={"runAsUser": None, "runAsGroup": None, "fsGroup": None}), id="the cluster's own users"),
        pytest.param(pod(securityContext={"runAsUser": {"$patch": "delete"}}), id="the same by a directive"),
        pytest.param(pod(serviceAccountName=OWNER.name), id="its own account"),
    ],
)
def test_what_stays_inside_the_namespace_is_the_users_to_set(patch: dict[str, Any]) -> None:
    assert template(patch)


def test_a_secret_that_a_field_of_the_resource_names_may_be_used_in_the_patch() -> None:
    named: dict[str, Any] = {
        "model": {"uri": "a/b", "tokenSecretRef": {"name": "hub"}},
        "auth": {"secretRef": {"name": "keys"}},
        "predictor": {"history": {"postgres": {"dsnSecretRef": {"name": "dsn"}, "keySecretRef": {"name": "salt"}}}},
        "engine": {"device": "cpu", "env": [{"name": "S3", "valueFrom": {"secretKeyRef": {"name": "bucket", "key": "k"}}}]},
    }
    names = ("hub", "keys", "dsn", "salt", "bucket")
    patch = pod(volumes=[{"name": name, "secret": {"secretName": name}} for name in names])
    assert {one["name"] for one in template(patch, **named)["spec"]["volumes"]} >= set(names)


def test_a_container_that_the_user_adds_is_restricted_unless_it_says_otherwise() -> None:
    added = template(pod(containers=[{"name": "extra", "image": "x"}]))["spec"]["containers"][-1]
    assert added["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    with pytest.raises(InvalidSpec, match=r"containers\[extra\].securityContext.capabilities.drop: null is not allowed"):
        template(pod(containers=[{"name": "extra", "image": "x", "securityContext": None}]))


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in SPECS.items()])
@pytest.mark.parametrize("cluster", [CURRENT, OLD])
def test_what_the_operator_makes_itself_needs_no_permission(changes: dict[str, Any], cluster: Cluster) -> None:
    spec = make_spec(**changes)
    assert list(policy_problems(pod_template(spec, OWNER, cluster), spec, OWNER, Allowed())) == []


@pytest.mark.parametrize("text", ["hostpath", "hostPath=", "hostPath,everything"])
def test_a_setting_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not one of allowPrivilegeEscalation"):
        read_allowed(text)


def test_the_setting_is_a_variable_of_the_operator() -> None:
    assert load({SETTING: "hostPath=/srv, nodeName"}).allowed == Allowed(frozenset({"hostPath=/srv", "nodeName"}))
    with pytest.raises(ConfigError, match=f"{SETTING}='hostpath'"):
        load({SETTING: "hostpath"})


async def test_the_setting_reaches_the_pods() -> None:
    world = World()
    world.kube.put_engine(raw_spec(podTemplate=pod(hostNetwork=True)))
    world.reconciler = Reconciler(world.kube, world.poller, Images(), allowed=read_allowed("hostNetwork"))
    async with world.poller:
        assert await world.reconciler.reconcile(KEY) is None
    assert world.deployment()["spec"]["template"]["spec"]["hostNetwork"] is True


def test_every_term_of_the_setting_is_one_that_a_refusal_names() -> None:
    named = {row.values[2] for row in REFUSED}
    kinds = {str(term).partition("=")[0] for term in named}
    assert kinds - VOLUME_TYPES == TERMS - VOLUME_TYPES


def test_a_variable_of_a_secret_moves_to_the_field_that_may_name_one() -> None:
    variable = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "others", "key": "k"}}}
    with pytest.raises(InvalidSpec) as caught:
        template({"spec": {"containers": [{"name": "engine", "env": [variable]}]}})
    (problem,) = caught.value.problems
    assert "Secret 'others' may not be referenced from podTemplate" in problem.text
    assert "Move the variable to spec.engine.env ({name: X, valueFrom: {secretKeyRef: …}})" in problem.text
    engine = make_spec(engine={"device": "cpu", "env": [variable]})
    made = pod_template(engine, OWNER, CURRENT)["spec"]["containers"]
    assert any(variable in container["env"] for container in made)


def test_a_value_that_would_make_a_long_sentence_is_not_suggested() -> None:
    with pytest.raises(InvalidSpec) as caught:
        template({"spec": {"nodeName": "n" * 253}})
    (problem,) = caught.value.problems
    assert len(problem.text) <= 600
    assert "add nodeName to the comma-separated list" in problem.text


def test_a_privileged_container_is_refused_in_a_sentence() -> None:
    with pytest.raises(
        InvalidSpec,
        match=r"privileged: true is not allowed, because the container would have full control of the node. Leave it out. Otherwise",
    ):
        template({"spec": {"containers": [{"name": "engine", "securityContext": {"privileged": True}}]}})


def test_two_refusals_begin_with_their_fields_and_have_no_other_semicolon() -> None:
    with pytest.raises(InvalidSpec) as caught:
        template({"spec": {"hostNetwork": True, "volumes": [{"name": "root", "hostPath": {"path": "/"}}]}})
    first, second = str(caught.value).split("; ")
    assert first.startswith("spec.podTemplate.spec.hostNetwork: true is not allowed, because the pod would use the node's network. Leave")
    assert second.startswith(
        "spec.podTemplate.spec.volumes[root].hostPath: hostPath volumes are not allowed, because they give the pod the node's files. Use"
    )


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        pytest.param(volume(nfs={}), "nfs volumes are not allowed, because they give the pod storage outside the namespace", id="storage"),
        pytest.param(volume(csi={"driver": "d"}), "because they let the resource control a storage driver of the node", id="a driver"),
        pytest.param(pod(nodeName="n"), "Use spec.podTemplate.spec.nodeSelector or spec.podTemplate.spec.affinity. Otherwise", id="a node"),
        pytest.param(
            pod(priorityClassName="system-node-critical"),
            "Use a PriorityClass that does not begin with system- (kubectl get priorityclasses), or leave it out. Otherwise",
            id="a priority",
        ),
        pytest.param(
            pod(serviceAccountName="admin"),
            "the ServiceAccount 'tiny', which the operator creates for this engine and which has no permissions in the cluster. Leave",
            id="an account",
        ),
        pytest.param(
            pod(automountServiceAccountToken=True),
            "because the token would let everything in the pod call the Kubernetes API. Leave",
            id="a token",
        ),
        pytest.param(
            secured(capabilities={"drop": ["CHOWN"]}), '["CHOWN"] is not allowed. It must be ["ALL"]. Otherwise', id="capabilities"
        ),
    ],
)
def test_a_refusal_says_why_and_what_to_use_instead(patch: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        template(patch)
    assert said in str(caught.value)
