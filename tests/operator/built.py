"""Children that are built from specs for tests, and specs that between them reach every field.

The tests of `tests/operator` and `fuzz/specs.py` use them.
"""

from typing import Any

from alise_operator.children import children
from alise_operator.cluster import Cluster
from tests.operator.builders import CURRENT, OWNER, make_spec

INGRESS = {"type": "Ingress", "hosts": ["llm.example.com"], "className": "nginx"}
HTTP_ROUTE = {
    "type": "HTTPRoute",
    "hosts": ["llm.example.com"],
    "parentRef": {"name": "public", "namespace": "edge", "sectionName": "https"},
}
# Specs that between them reach every field (test_crd.py).
SPECS: dict[str, dict[str, Any]] = {
    "the least": {},
    "several replicas behind an Ingress": {
        "replicas": 3,
        "route": INGRESS | {"tlsSecret": "cert", "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"}},
    },
    "an HTTPRoute": {"route": HTTP_ROUTE | {"timeouts": "Omit"}},
    "a cached model with a token": {
        "model": {
            "uri": "org/model",
            "revision": "main",
            "servedName": "chat",
            "aliases": ["gpt-3.5-turbo"],
            "tokenSecretRef": {"name": "hub", "key": "read"},
            "cache": {"size": "10Gi", "storageClass": "fast", "accessMode": "ReadWriteMany"},
        }
    },
    "LoRA adapters": {
        "model": {
            "uri": "org/model",
            "adapters": [{"name": "support", "uri": "org/support-lora", "revision": "v2"}, {"name": "legal", "uri": "/adapters/legal"}],
            "lora": {"maxRank": 64, "maxActive": 2},
        }
    },
    "two GPUs": {"engine": {"device": "cuda", "tensorParallelSize": 2, "maxModelLen": 4096, "maxNumSeqs": 8, "kvCacheDtype": "fp8"}},
    "an engine and a scheduler of the user's": {
        "engine": {
            "image": "registry.example.com/engine:1",
            "args": ["--seed=7"],
            "env": [
                {"name": "HF_HOME", "value": "/hub"},
                {"name": "LICENSE", "valueFrom": {"secretKeyRef": {"name": "plugin", "key": "license"}}},
            ],
            "rollout": "replace",
            "resources": {
                "requests": {"cpu": "2"},
                "limits": {"memory": "48Gi"},
                "claims": [{"name": "gpu", "request": "one"}],
            },
        },
        "kvOffload": {"hostMemory": "2Gi", "quantization": "int8"},
        "scheduling": {
            "image": "registry.example.com/scheduler:1",
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}, "claims": [{"name": "gpu", "request": "one"}]},
        },
        "podTemplate": {"spec": {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]}},
        "drainSeconds": 60,
    },
    "an order of the user's": {"scheduling": {"slowdownTarget": 20, "overdueSeconds": 60, "preemption": False}},
    "a history that replicas share": {
        "predictor": {
            "encoder": "/models/encoder",
            "history": {
                "embeddings": False,
                "postgres": {"dsnSecretRef": {"name": "db", "key": "url"}, "keySecretRef": {"name": "db", "key": "salt"}},
            },
        }
    },
    "autoscaling": {
        "autoscaling": {
            "minReplicas": 0,
            "maxReplicas": 4,
            "targetBacklogSeconds": 30,
            "idleSeconds": 900,
            "scaleDown": {"stabilizationSeconds": 120},
        },
        "routing": {"endpointPicker": {}},
    },
    "headers of a gateway that other peers reach": {
        "admission": {"trustHeaders": True},
        "routing": {
            "endpointPicker": {"from": [{"podSelector": {}}]},
            "lengthsFrom": [{"podSelector": {"matchLabels": {"app": "picker"}}}],
        },
        "networkPolicy": {"enabled": True},
    },
    "classes and limits": {
        "scheduling": {"policy": "gittins", "ageing": False, "classes": [{"name": "batch", "weight": "250m", "sloTtftMs": 500}]},
        "admission": {"maxPending": 5, "maxWaitSeconds": 7},
    },
    "API keys of tenants with classes": {
        "auth": {"secretRef": {"name": "keys"}, "tenants": [{"name": "team-a", "class": "gold"}], "guardMetrics": True},
        "scheduling": {"classes": [{"name": "gold", "weight": 2}]},
        "admission": {"maxBodySize": "1.5Mi", "bodySeconds": 5, "isolatePrefixCache": True},
    },
    "guarded pods": {
        "networkPolicy": {"from": [{"podSelector": {"matchLabels": {"app": "gateway"}}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    },
    "a claim that exists, guarded ways out, and devices of the user's": {
        "model": {"uri": "org/model", "cache": {"claimName": "team-weights", "accessMode": "ReadWriteMany"}},
        "networkPolicy": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
        "engine": {"device": "cuda", "scratchSize": "1Gi", "resources": {"limits": {"habana.ai/gaudi": 1}}},
    },
    "an endpoint picker": {"routing": {"endpointPicker": {"hold": {"maxRequests": 5, "seconds": 30}}}, "replicas": 2},
    "traces": {
        "observability": {"traces": {"endpoint": "http://collector.observability:4317", "protocol": "grpc", "samplingRatio": "50m"}},
        "networkPolicy": {"egress": []},
    },
    "traces over HTTP, and no network policy": {
        "observability": {"traces": {"endpoint": "http://collector.observability:4318/v1/traces", "protocol": "http/protobuf"}},
        "networkPolicy": {"enabled": False},
    },
    "suspended": {"suspend": True, "replicas": 2},
    "a patched pod": {"podTemplate": {"spec": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}}},
}


def build(cluster: Cluster = CURRENT, **changes: Any) -> dict[str, dict[str, Any]]:
    """Children by kind. Where a kind has two, such as the Deployments of engines and picker, it is the one named like the resource."""
    found = children(make_spec(**changes), OWNER, cluster)
    return {child["kind"]: child for child in sorted(found, key=lambda child: child["metadata"]["name"] == OWNER.name)}


def pod(cluster: Cluster = CURRENT, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = build(cluster, **changes)["Deployment"]["spec"]["template"]["spec"]
    return found


def container(name: str, cluster: Cluster = CURRENT, **changes: Any) -> dict[str, Any]:
    spec = pod(cluster, **changes)
    return next(one for one in [*spec.get("initContainers", []), *spec["containers"]] if one["name"] == name)


def environment(name: str, **changes: Any) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(name, **changes)["env"]}
