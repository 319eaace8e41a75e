"""Builds the endpoint picker of a resource: Deployment, Service, ServiceAccount, RoleBinding and NetworkPolicy, all named NAME-picker.

One per resource (docs/adr/0060), so that one resource's prompts and floods stay with it. The picker's account may list and watch
EndpointSlices in its namespace, and nothing else. Without a picker, gateways balance by themselves, so one pod is enough. Pure;
`children()` in __init__.py calls it.
"""

from typing import Final

from alise_contract.names import PICKER_GRPC_PORT, PICKER_HTTP_PORT, PICKER_SUFFIX, RUN_AS
from alise_operator.children.meta import Manifest, Owner, metadata
from alise_operator.children.network_policy import PICKER_LABEL, operator_peer
from alise_operator.cluster import Cluster
from alise_operator.spec import Spec

# The ClusterRole, or in an installation for one namespace the Role, that manifests/ brings.
ROLE: Final = "alise-picker"
# Fields of the engine's pod that say from which registries pods are pulled and on which nodes they may run.
_PLACEMENT: Final = ("imagePullSecrets", "nodeSelector", "tolerations")
# A stopping picker refuses what it holds at once, and gives streams that are open 25 s.
_GRACE_SECONDS: Final = 30
_RESOURCES: Final[Manifest] = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


def picker_name(owner: Owner) -> str:
    return owner.name + PICKER_SUFFIX


def picker_selector(owner: Owner) -> dict[str, str]:
    """Returns labels that select the picker's pods. They do not have the engine's label, by which the pods of the model are found."""
    return {PICKER_LABEL: owner.name}


def picker(spec: Spec, owner: Owner, cluster: Cluster, template: Manifest) -> list[Manifest]:
    """Returns the objects of the picker in the order in which they are applied; none if the resource has none.

    `template` is the engine's pod template. The picker pulls its image with the same Secrets and runs on the same kinds of nodes.
    """
    if spec.routing.endpoint_picker is None:
        return []
    account: Manifest = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(owner), "automountServiceAccountToken": False}
    policy = _network_policy(spec, owner, cluster)
    return [
        account,
        _role_binding(owner, cluster),
        *([policy] if policy else []),
        _service(owner),
        _deployment(spec, owner, cluster, template),
    ]


def _metadata(owner: Owner) -> Manifest:
    return metadata(owner) | {"name": picker_name(owner)}


def _role_binding(owner: Owner, cluster: Cluster) -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": _metadata(owner),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": cluster.picker_role_kind, "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": picker_name(owner), "namespace": owner.namespace}],
    }


def _network_policy(spec: Spec, owner: Owner, cluster: Cluster) -> Manifest | None:
    assert spec.routing.endpoint_picker is not None
    if not spec.network_policy.enabled:
        return None
    peers = spec.routing.endpoint_picker.from_
    rule: Manifest = {"ports": [{"protocol": "TCP", "port": PICKER_GRPC_PORT}, {"protocol": "TCP", "port": PICKER_HTTP_PORT}]}
    if peers:
        rule["from"] = [operator_peer(cluster), *peers]
    policy = {"podSelector": {"matchLabels": picker_selector(owner)}, "policyTypes": ["Ingress"], "ingress": [rule]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": _metadata(owner), "spec": policy}


def _service(owner: Owner) -> Manifest:
    ports = [
        {"name": "grpc", "protocol": "TCP", "port": PICKER_GRPC_PORT, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"},
        {"name": "http", "protocol": "TCP", "port": PICKER_HTTP_PORT, "targetPort": "http"},
    ]
    spec = {"type": "ClusterIP", "selector": picker_selector(owner), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(owner), "spec": spec}


def _deployment(spec: Spec, owner: Owner, cluster: Cluster, template: Manifest) -> Manifest:
    assert spec.routing.endpoint_picker is not None
    hold = spec.routing.endpoint_picker.hold
    labels = {"app.kubernetes.io/name": "alise-picker", "app.kubernetes.io/instance": owner.name, **picker_selector(owner)}
    probe = {"httpGet": {"path": "/healthz", "port": "http"}, "timeoutSeconds": 5}
    container = {
        "name": "picker",
        "image": cluster.images.picker,
        "imagePullPolicy": "IfNotPresent",
        "command": ["alise-picker"],
        "args": [
            "--resource", f"{owner.namespace}/{owner.name}",
            "--hold-requests", str(hold.max_requests), "--hold-seconds", str(hold.seconds),
            # The replicas refuse a request without a key, so it is not worth starting one.
            *(["--hold-needs-key"] if spec.auth else []),
        ],
        "ports": [
            {"name": "grpc", "protocol": "TCP", "containerPort": PICKER_GRPC_PORT},
            {"name": "http", "protocol": "TCP", "containerPort": PICKER_HTTP_PORT},
        ],
        "readinessProbe": probe | {"periodSeconds": 2},
        "livenessProbe": {"tcpSocket": {"port": "http"}, "timeoutSeconds": 5, "periodSeconds": 10, "failureThreshold": 6},
        "resources": _RESOURCES,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    pod = {
        "containers": [container],
        "serviceAccountName": picker_name(owner),
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": RUN_AS,
            "runAsGroup": RUN_AS,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **{key: template["spec"][key] for key in _PLACEMENT if template["spec"].get(key)},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(owner),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": picker_selector(owner)},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
