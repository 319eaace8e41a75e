"""The commands of `kubectl alise`, which `__main__.py` runs: they read the cluster (`kubectl.py`), and print what the pure modules return.

Three do more: `drain` evicts a pod, `support-bundle` writes a file, and `ui` serves a page on this machine and opens a browser.
"""

import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from alise_contract.names import API_GROUP, ENGINE_LABEL, KIND, PLURAL
from alise_contract.release import release

from . import bundle, drain, pods, requests_text, status_text
from . import ui as local_ui
from .errors import NotFoundError, PluginError
from .forward import ForwardedOperator
from .kubectl import Cluster, Kubectl, Target
from .objects import Engine, Pod, engine_of, events_of, newest_template, pod_of
from .tables import printable

_KIND: Final = f"{PLURAL}.{API_GROUP}"
F = TypeVar("F", bound=Callable[..., Any])


def _of_engines(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _names(context, _KIND, incomplete)


def _of_pods(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _names(context, f"pods --selector={ENGINE_LABEL}", incomplete)


def _names(context: click.Context, kind: str, incomplete: str) -> list[CompletionItem]:
    """Names for shell completion; none if the cluster cannot be asked."""
    target = Target(*(context.params.get(name) for name in ("namespace", "context", "kubeconfig")))
    try:
        found = Kubectl(target).text("get", *kind.split(), "--output=name", timeout_seconds=3.0)
    except PluginError:
        return []
    names = (line.partition("/")[2] for line in found.splitlines())
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _name_of(*kinds: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Returns what takes a name of these kinds with its kind as well, as `kubectl get -o name` prints it: KIND/NAME."""

    def bare(_: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
        kind, slash, name = (given or "").rpartition("/")
        if not slash:
            return given
        if kind.lower() not in kinds or not name:
            raise click.BadParameter(f"{given} is not a name: give NAME or {kinds[0]}/NAME", param=parameter)
        return name

    return bare


_engine_name, _pod_name = _name_of("alise", PLURAL, KIND.lower(), _KIND, f"{KIND.lower()}.{API_GROUP}"), _name_of("pod", "pods", "po")


def _with_cluster(command: F) -> F:
    """Adds the options of kubectl that say which cluster and namespace."""
    for option in (
        click.option("--kubeconfig", metavar="FILE", help="Path of the kubeconfig file."),
        click.option("--context", metavar="NAME", help="Context of the kubeconfig."),
        click.option("--namespace", "-n", metavar="NAME", help="Namespace; by default that of the context."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["--help", "-h"]})
@click.version_option(version=release(), prog_name="kubectl alise")
def cli() -> None:
    """What AliseEngines do, why a request waits, and what is wrong."""


@cli.command()
@click.argument("name", required=False, shell_complete=_of_engines, callback=_engine_name)
@click.option("--all-namespaces", "-A", is_flag=True, help="List the resources of all namespaces.")
@_with_cluster
def status(name: str | None, all_namespaces: bool, namespace: str | None, context: str | None, kubeconfig: str | None) -> None:
    """Show one resource: pods, rollout, route, what is wrong and what to do. Without NAME, list all."""
    cluster, now = Kubectl(Target(namespace, context, kubeconfig)), datetime.now(UTC)
    if name is None:
        found = cluster.get(_KIND, *(["--all-namespaces"] if all_namespaces else []))
        _print(status_text.list_text([engine_of(one) for one in found["items"]], now, all_namespaces))
        return
    engine, its_pods = engine_of(cluster.get(_KIND, name)), _pods(cluster, name)
    reports, not_understood = pods.reports(cluster, its_pods)
    template, events = _template(cluster, name), _events(cluster, name)
    _print(status_text.status_text(engine, its_pods, template, reports, events, now, not_understood))


@cli.command()
@click.argument("name", required=False, shell_complete=_of_engines, callback=_engine_name)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="Show at most this many requests of each pod.")
@_with_cluster
def top(name: str | None, limit: int, namespace: str | None, context: str | None, kubeconfig: str | None) -> None:
    """List the requests that have not ended, by pod and rank: predicted and done, waiting and preempted. Without NAME, of all."""
    cluster = Kubectl(Target(namespace, context, kubeconfig))
    _print(requests_text.top_text(*pods.requests(cluster, _some_pods(cluster, name), limit)))


@cli.command()
@click.argument("name", shell_complete=_of_engines, callback=_engine_name)
@click.argument("request")
@_with_cluster
def explain(name: str, request: str, namespace: str | None, context: str | None, kubeconfig: str | None) -> None:
    """Say why REQUEST of the resource NAME waits, or has waited: how many are ahead, by which rule, when its turn comes.

    REQUEST is the id in the header x-request-id of its answer, or the `id` in the answer itself.
    """
    cluster = Kubectl(Target(namespace, context, kubeconfig))
    answers, unknown = pods.accounts(cluster, _some_pods(cluster, name), request)
    _print(requests_text.explain_text(request, answers, unknown))
    if not requests_text.found(answers):
        sys.exit(1)


@cli.command(name="drain")
@click.argument("pod", shell_complete=_of_pods, callback=_pod_name)
@click.option("--force", is_flag=True, help="Drain the pod also if no other pod of the resource is ready.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the pod has ended.")
@_with_cluster
def drain_pod(pod: str, force: bool, no_wait: bool, namespace: str | None, context: str | None, kubeconfig: str | None) -> None:
    """Stop POD without cutting an answer. Its Deployment starts another one."""
    cluster = Kubectl(Target(namespace, context, kubeconfig))
    found = cluster.get("pod", pod)
    name = found["metadata"].get("labels", {}).get(ENGINE_LABEL, "")
    others = sum(one.ready and not one.ending and one.name != pod for one in _pods(cluster, name)) if name else 0
    if (refusal := drain.refusal_to_drain(found, others, force)) is not None:
        raise PluginError(refusal)
    drain.evict(cluster, found)
    if no_wait:
        click.echo(f"{pod} drains: it finishes its open answers and refuses new requests.")
    elif drain.wait_until_gone(cluster, found, click.echo):
        click.echo(f"{pod} has ended.")
    else:
        raise PluginError(f"{pod} has not ended: see `kubectl describe pod {pod}`")


@cli.command(name="support-bundle")
@click.argument("name", shell_complete=_of_engines, callback=_engine_name)
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="File to write; by default alise-NAME.tar.gz.")
@click.option("--operator-namespace", metavar="NAME", default=bundle.OPERATOR_NAMESPACE, show_default=True, help="Where the operator runs.")
@_with_cluster
def support_bundle(
    name: str, output: Path | None, operator_namespace: str, namespace: str | None, context: str | None, kubeconfig: str | None
) -> None:
    """Write what a report of a bug needs to a tar.gz: the resource, its children, events, pods and logs. No prompts, no Secrets."""
    cluster = Kubectl(Target(namespace, context, kubeconfig))
    path = output or Path(f"alise-{name}.tar.gz")
    packed = bundle.packed(name, bundle.files(cluster, name, operator_namespace))
    try:
        path.write_bytes(packed)
    except OSError as error:
        raise PluginError(f"{path} cannot be written: {error.strerror}; give another --output") from error
    click.echo(f"{path} has {len(packed) // 1024 + 1} KiB. Secrets and prompts were taken out; read it before you pass it on.")


@cli.command()
@click.option("--port", default=8001, show_default=True, type=click.IntRange(0, 65535), help="Port on this machine; 0 picks a free one.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@click.option("--namespace", "-n", metavar="NAME", default="alise-system", show_default=True, help="Namespace of the operator.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig.")
@click.option("--kubeconfig", metavar="FILE", help="Path of the kubeconfig file.")
def ui(port: int, no_browser: bool, namespace: str, context: str | None, kubeconfig: str | None) -> None:
    """Show all of this in a browser: a read-only page on this machine, until Ctrl-C."""

    def cluster_of(its_namespace: str) -> Cluster:
        return Kubectl(Target(its_namespace, context, kubeconfig), local_ui.CALL_SECONDS)

    with ForwardedOperator(Kubectl(Target(namespace, context, kubeconfig)), namespace) as operator:
        server, address = local_ui.serving(local_ui.Ui(operator, cluster_of), port)
        with server:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            # First, so that a mistake is named here and not in the browser.
            operator.start()
            click.echo(f"The page is at {address} until you press Ctrl-C. The address has a key: it is for you alone.")
            if not no_browser:
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                click.echo("")


def _print(lines: Sequence[str]) -> None:
    click.echo(printable("\n".join(lines)))


def _pods(cluster: Cluster, name: str) -> list[Pod]:
    return [pod_of(one) for one in cluster.get("pods", f"--selector={ENGINE_LABEL}={name}")["items"]]


def _some_pods(cluster: Cluster, name: str | None) -> list[Pod]:
    """The pods of a resource, or of all of the namespace. Raises NotFoundError if there is no such resource, or no pod."""
    if name is None:
        found = [pod_of(one) for one in cluster.get("pods", f"--selector={ENGINE_LABEL}")["items"]]
        if not found:
            raise NotFoundError("no AliseEngine has a pod in this namespace: see `kubectl alise status`, or give another -n")
        return found
    engine: Engine = engine_of(cluster.get(_KIND, name))
    found = _pods(cluster, name)
    if not found:
        raise NotFoundError(f"{engine.namespace}/{name} has no pods: `kubectl alise status {name}` says why")
    return found


def _template(cluster: Cluster, name: str) -> str:
    try:
        return newest_template(cluster.get("deployment", name))
    except PluginError:
        # It has no Deployment yet, or the person may not read it: the rollout is not shown then.
        return ""


def _events(cluster: Cluster, name: str) -> Any:
    try:
        return events_of(cluster.get("events", f"--field-selector=involvedObject.kind={KIND},involvedObject.name={name}")["items"])
    except PluginError:
        return ()
