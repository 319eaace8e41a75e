"""A pod of stock vLLM in our image, to compare with. `conftest.py` starts it; this file only builds the manifest."""

from typing import Any

from alise_contract.names import ENGINE_PORT, RUN_AS
from tests.cluster.resource import NAMESPACE
from tests.surface.servers import ENVIRON, FLAGS, SIZES, STOCK_ENVIRON, STOCK_FLAGS

STOCK_POD = "stock"
# One OpenMP thread in both: with two engines on two cores more of them wait for each other.
ENGINE_ENVIRON = {**ENVIRON, "OMP_NUM_THREADS": "1"}


def stock_pod(image: str) -> dict[str, Any]:
    """`vllm serve` without alise, in the same image, under the same restrictions."""
    command = ["python3", "-m", "vllm.entrypoints.cli.main", "serve", "/models/tiny", "--port", str(ENGINE_PORT)]
    # TORCH_COMPILE_DISABLE: stock compiles what logprobs need when they are first asked for (D1), and the image has no compiler. It is
    # stock's only help; ours has to do without.
    environ = {**ENGINE_ENVIRON, **STOCK_ENVIRON, "TORCH_COMPILE_DISABLE": "1"}
    container = {
        "name": "vllm",
        "image": image,
        "command": [*command, *SIZES, *FLAGS, *STOCK_FLAGS],
        "env": env(environ),
        "readinessProbe": {"httpGet": {"path": "/health", "port": ENGINE_PORT}, "periodSeconds": 2, "timeoutSeconds": 5},
        "resources": {"requests": {"cpu": "300m", "memory": "2560Mi"}, "limits": {"memory": "4Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": STOCK_POD, "namespace": NAMESPACE},
        "spec": {
            "containers": [container],
            "terminationGracePeriodSeconds": 5,
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": RUN_AS, "runAsGroup": RUN_AS, "fsGroup": RUN_AS},
            "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}}],
        },
    }


def env(environ: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in environ.items()]
