"""Turns what kubectl prints when it fails into an error that says what to do; pure. `kubectl.py` and `forward.py` call it."""

import re
from collections.abc import Callable
from typing import Final

from alise_contract.names import PLURAL

from .errors import KubectlError, NoClusterError, NotAllowedError, NotFoundError, PluginError

_Make = Callable[[re.Match[str]], PluginError]


def _no_cluster(_: re.Match[str]) -> PluginError:
    return NoClusterError("no cluster is configured: set KUBECONFIG, or give --kubeconfig FILE, and check it with `kubectl cluster-info`")


def _no_answer(match: re.Match[str]) -> PluginError:
    return NoClusterError(f"the cluster does not answer ({match[0].strip()}): check the network and `kubectl config current-context`")


def _no_file(match: re.Match[str]) -> PluginError:
    return NoClusterError(f"the kubeconfig {match[1]} does not exist: give another --kubeconfig, or set KUBECONFIG")


def _no_context(match: re.Match[str]) -> PluginError:
    return NoClusterError(f"the kubeconfig has no context {match[1]}: `kubectl config get-contexts` lists those that it has")


def _no_kind(match: re.Match[str]) -> PluginError:
    if match[1].startswith(PLURAL):
        return NotFoundError("this cluster does not know AliseEngines: install alise, or use another --context")
    return NotFoundError(f"this cluster has no {match[1]}: its Kubernetes may be older than alise needs")


def _no_pod(name: str) -> PluginError:
    return NotFoundError(f"there is no pod {name} in this namespace, or it has ended: `kubectl get pods` lists those that exist")


def _not_found(match: re.Match[str]) -> PluginError:
    kind, name = match[1].split(".")[0], match[2]
    if kind == PLURAL:
        return NotFoundError(f"there is no AliseEngine {name} in this namespace: `kubectl get alise -A` lists all of them; give another -n")
    if kind == "pods":
        return _no_pod(name)
    return NotFoundError(f"there is no {name} among the {kind} of this namespace: give another -n")


def _forbidden(match: re.Match[str]) -> PluginError:
    return NotAllowedError(
        f"you may not do this: {match[1].strip()}. Ask for the right; `kubectl auth can-i --list` shows those that you have"
    )


def _unauthorized(_: re.Match[str]) -> PluginError:
    return NotAllowedError("the cluster does not accept your credentials: log in again, or use another --context")


def _no_container(match: re.Match[str]) -> PluginError:
    return NotFoundError(f"the container {match[1]} does not run in this pod: it may be starting or ending; see `kubectl get pods`")


# The first pattern that is found counts. The words are kubectl's, and have been the same since 1.20.
_KNOWN: Final[tuple[tuple[str, _Make], ...]] = (
    (r"connection to the server localhost:8080 was refused", _no_cluster),
    (r"no configuration has been provided", _no_cluster),
    (r"error: stat (\S+): no such file or directory", _no_file),
    (r'context "?([^"\s]+)"? (?:does not exist|was not found)', _no_context),
    (r"You must be logged in to the server|\(Unauthorized\)", _unauthorized),
    (r"\(Forbidden\): (.*)", _forbidden),
    (r'the server doesn\'t have a resource type "([^"]+)"', _no_kind),
    (r'\(NotFound\): ([\w.]+) "([^"]+)" not found', _not_found),
    (r'pods? "?([^"\s]+)"? (?:not found|does not exist)', lambda match: _no_pod(match[1])),
    (r'container not found \("([^"]+)"\)', _no_container),
    (r"container (\S+) is not valid for pod", _no_container),
    (r"Unable to connect to the server: .*|The connection to the server \S+ was refused.*|i/o timeout", _no_answer),
)


def refusal(words: str) -> PluginError:
    """The error for what kubectl printed on its standard error."""
    for pattern, make in _KNOWN:
        if match := re.search(pattern, words):
            return make(match)
    lines = [line.removeprefix("error: ").removeprefix("Error from server: ") for line in words.splitlines() if line.strip()]
    return KubectlError(f"kubectl failed: {lines[-1] if lines else 'it printed no reason'}")
