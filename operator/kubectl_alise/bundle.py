"""What a support bundle is made of: objects and logs of one resource, nodes and versions, and the operator's log; read, cleaned, packed.

It reads through the `Cluster` of `kubectl.py` alone, which also runs `alise-engine status` and `alise-scheduler top` in the pods.
`redact.py` cleans objects, logs and what these commands print. A part that cannot be read is a file that says why: a bundle of a broken
cluster is what a bundle is for. `cli.py` calls it and writes the file.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, Final

from alise_contract.names import API_GROUP, ENGINE_CONTAINER, ENGINE_LABEL, KIND, PLURAL, SCHEDULER_CONTAINER

from .errors import PluginError
from .kubectl import Cluster
from .redact import redacted_log, redacted_object, redacted_text

LOG_LINES: Final = 2000
# Read one by one, because a cluster may lack some of them. Secrets and ConfigMaps are not among them.
_CHILDREN: Final = (
    *("deployments", "replicasets", "services", "endpoints", "networkpolicies", "poddisruptionbudgets", "persistentvolumeclaims"),
    *("serviceaccounts", "ingresses.networking.k8s.io", "httproutes.gateway.networking.k8s.io"),
)
OPERATOR_NAMESPACE: Final = "alise-system"


def files(cluster: Cluster, name: str, operator_namespace: str = OPERATOR_NAMESPACE) -> Iterator[tuple[str, str]]:
    """Yields (path, text) for each file of the bundle. Raises PluginError if the resource itself cannot be read."""
    resource = cluster.get(f"{PLURAL}.{API_GROUP}", name)
    yield "resource.json", _json(redacted_object(resource))
    selector = f"--selector={ENGINE_LABEL}={name}"
    for kind in _CHILDREN:
        yield f"children/{kind.split('.')[0]}.json", _tried(lambda kind=kind: _json(redacted_object(cluster.get(kind, selector))))  # type: ignore[misc]
    events, by_time = f"--field-selector=involvedObject.kind={KIND},involvedObject.name={name}", "--sort-by=.metadata.creationTimestamp"
    yield "events-of-the-resource.json", _tried(lambda: _json(redacted_object(cluster.get("events", events))))
    yield (
        "events-of-the-namespace.txt",
        _tried(lambda: redacted_text(cluster.text("get", "events", by_time))),
    )
    yield "versions.txt", _tried(lambda: cluster.text("version"))
    yield "nodes.txt", _tried(lambda: cluster.text("get", "nodes", "--output=wide"))
    pods = _pods(cluster, selector)
    yield "pods.json", _json(redacted_object(pods)) if isinstance(pods, list) else pods
    for pod in pods if isinstance(pods, list) else ():
        yield from _of_pod(cluster, pod["metadata"]["name"])
    operator = ("logs", f"--namespace={operator_namespace}", "deployment/alise-operator", f"--tail={LOG_LINES}")
    yield "operator.log", _tried(lambda: redacted_log(cluster.text(*operator)))


def packed(name: str, parts: Iterator[tuple[str, str]]) -> bytes:
    """The bundle as tar.gz, in a folder of the resource's name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in parts:
            data = text.encode("utf-8", "replace")
            info = tarfile.TarInfo(f"alise-{name}/{path}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _of_pod(cluster: Cluster, pod: str) -> Iterator[tuple[str, str]]:
    yield f"pods/{pod}/status.json", _tried(lambda: _output(cluster, pod, ENGINE_CONTAINER, "alise-engine", "status"))
    yield f"pods/{pod}/requests.json", _tried(lambda: _output(cluster, pod, SCHEDULER_CONTAINER, "alise-scheduler", "top", "--json"))
    for container in (ENGINE_CONTAINER, SCHEDULER_CONTAINER):
        log = ("logs", pod, f"--container={container}", f"--tail={LOG_LINES}")
        yield f"pods/{pod}/{container}.log", _tried(lambda log=log: redacted_log(cluster.text(*log)))  # type: ignore[misc]
        yield f"pods/{pod}/{container}.previous.log", _tried(lambda log=log: redacted_log(cluster.text(*log, "--previous")))  # type: ignore[misc]


def _output(cluster: Cluster, pod: str, container: str, *command: str) -> str:
    status, output, error = cluster.run_in(pod, container, command)
    return redacted_text(output if status == 0 else f"{' '.join(command)} ended with {status}: {error}")


def _pods(cluster: Cluster, selector: str) -> list[Any] | str:
    try:
        return list(cluster.get("pods", selector)["items"])
    except PluginError as error:
        return _missing(error)


def _tried(read: Callable[[], str]) -> str:
    try:
        return read()
    except PluginError as error:
        return _missing(error)


def _missing(error: PluginError) -> str:
    return f"could not be read: {error}\n"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
