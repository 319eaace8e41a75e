"""Asks the pods of a resource by running the commands of their own images in them. `cli.py` and `ui.py` show the answers."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from alise_contract.names import ENGINE_CONTAINER, SCHEDULER_CONTAINER

from .errors import KubectlError, NotUnderstoodError, PluginError
from .kubectl import Cluster
from .objects import Pod
from .requests_text import explain_text, top_text
from .status_text import Report, report_of

# Each is a kubectl process.
_AT_ONCE: Final = 8
T = TypeVar("T")


def reports(cluster: Cluster, pods: Sequence[Pod]) -> tuple[dict[str, Report], dict[str, str]]:
    """What the pods report of their requests, and why an answer was not understood, both by pod; without those that do not answer."""
    command = ("alise-engine", "status")
    asked = [pod for pod in pods if pod.has(ENGINE_CONTAINER)]
    answers, errors = _each(asked, lambda pod: _read(command, _json_of(cluster, pod.name, ENGINE_CONTAINER, command), report_of))
    return answers, {name: str(error) for name, error in errors.items() if isinstance(error, NotUnderstoodError)}


def requests(cluster: Cluster, pods: Sequence[Pod], limit: int) -> tuple[dict[str, Any], dict[str, str]]:
    """The requests of each pod by rank, and why a pod did not answer, both by pod."""
    command = ("alise-scheduler", "top", "--json", f"--limit={limit}")

    def ask(pod: Pod) -> Any:
        answer = _json_of(cluster, pod.name, SCHEDULER_CONTAINER, command)
        _read(command, answer, lambda found: top_text({pod.name: found}, {}))
        return answer

    return _of_schedulers(pods, ask)


def accounts(cluster: Cluster, pods: Sequence[Pod], request_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What each pod knows of a request, and why a pod did not answer, both by pod."""
    command = ("alise-scheduler", "explain", "--json", "--", request_id)

    def ask(pod: Pod) -> Any:
        answer = _json_of(cluster, pod.name, SCHEDULER_CONTAINER, command)
        _read(command, answer, lambda found: explain_text(request_id, {pod.name: found}, {}))
        return answer

    return _of_schedulers(pods, ask)


def _read(command: Sequence[str], answer: Any, reader: Callable[[Any], T]) -> T:
    """What the reader makes of an answer. Raises NotUnderstoodError if it lacks what every release of today has."""
    try:
        return reader(answer)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        text = f"the answer of `{' '.join(command[:2])}` was not understood: its image may be of another release than this plugin"
        raise NotUnderstoodError(text) from error


def _of_schedulers(pods: Sequence[Pod], ask: Callable[[Pod], Any]) -> tuple[dict[str, Any], dict[str, str]]:
    answers, errors = _each([pod for pod in pods if pod.has(SCHEDULER_CONTAINER)], ask)
    silent = {pod.name: f"its scheduler does not run ({pod.state()})" for pod in pods if not pod.has(SCHEDULER_CONTAINER)}
    return answers, silent | {name: str(error) for name, error in errors.items()}


def _each(pods: Sequence[Pod], ask: Callable[[Pod], T]) -> tuple[dict[str, T], dict[str, PluginError]]:
    answers: dict[str, T] = {}
    errors: dict[str, PluginError] = {}

    def one(pod: Pod) -> T | PluginError:
        try:
            return ask(pod)
        except PluginError as error:
            return error

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for pod, answer in zip(pods, threads.map(one, pods), strict=True):
            if isinstance(answer, PluginError):
                errors[pod.name] = answer
            else:
                answers[pod.name] = answer
    return answers, errors


def _json_of(cluster: Cluster, pod: str, container: str, command: Sequence[str]) -> Any:
    """The JSON that a command in a container prints. It may end with a status other than 0. Raises PluginError."""
    status, output, error = cluster.run_in(pod, container, command)
    try:
        return json.loads(output)
    except ValueError:
        pass
    if "invalid choice" in error or status in (126, 127):
        raise KubectlError(f"`{' '.join(command[:2])}` does not exist in it: its image is of an older release than this plugin")
    words = [line for line in error.splitlines() if line.strip()]
    own = next((line for line in words if line.startswith(command[0])), words[0] if words else "it printed no reason")
    raise KubectlError(f"`{' '.join(command[:2])}` ended with status {status}: {own.rstrip('.')}")
