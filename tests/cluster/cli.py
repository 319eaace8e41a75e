"""The commands: `python -m tests.cluster --help`."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import build, cluster, images, packages, state
from tests.cluster.access import KUBECONFIG_VARIABLE, user_cluster
from tests.cluster.cluster import Tier
from tests.cluster.errors import ClusterError
from tests.cluster.progress import say


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m tests.cluster", description="A real Kubernetes 1.20.2 cluster on this Debian 12 machine.")
    top.add_argument("--name", default=state.DEFAULT_NAME, help="which cluster (default: %(default)s)")
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring the cluster up; nothing happens when it is up")
    up.add_argument("--control-plane-only", action="store_true", help="API server and controllers, no node")
    commands.add_parser("down", help="take the cluster down and leave nothing behind; works after a crash too")
    commands.add_parser("status", help="what runs; exit status 1 when the cluster is not up")
    commands.add_parser("build", help="build the binaries into the cache")
    commands.add_parser("packages", help="install the Debian packages that are missing")
    commands.add_parser("kubeconfig", help="print the path of the administrator's kubeconfig")
    of_images = commands.add_parser("images", help="images of the node").add_subparsers(dest="images", required=True)
    importing = of_images.add_parser("import", help="import image archives; skips what is there")
    importing.add_argument("files", nargs="+", type=Path, metavar="FILE")
    of_images.add_parser("list", help="names and digests of the images that pods can use")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    chosen = parser().parse_args(arguments)
    # So that a start that is ended from outside cleans up after itself, as with Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    try:
        return _run(chosen)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _run(chosen: argparse.Namespace) -> int:
    at, own = state.named(chosen.name), user_cluster()
    if own is not None and chosen.command in ("up", "down", "status", "images", "kubeconfig"):
        return _with_own_cluster(own, chosen.command)
    match chosen.command:
        case "up":
            cluster.up(at, Tier.CONTROL_PLANE if chosen.control_plane_only else Tier.NODE)
            say(f"export {KUBECONFIG_VARIABLE}={at.kubeconfig}")
        case "down":
            cluster.down(at)
        case "status":
            return _print_status(cluster.status(at))
        case "build":
            print(build.build().folder)
        case "packages" if own is None:
            packages.install((*packages.BUILD, *packages.CONTROL_PLANE, *packages.NODE, *packages.MONITORING, *packages.BROWSER))
        case "kubeconfig":
            if not cluster.status(at).up:
                raise ClusterError(f"cluster {chosen.name} is not up; start it with `python -m tests.cluster up`")
            print(at.kubeconfig)
        case "images" if chosen.images == "import":
            imported = images.import_images(at, chosen.files)
            say(f"{len(imported)} imported, {len(chosen.files) - len(imported)} there already")
        case "images":
            for name, digest in sorted(images.list_images(at).items()):
                print(f"{name}  {digest}")
    return 0


def _with_own_cluster(kubeconfig: str, command: str) -> int:
    """The user's own cluster is used as it is: never started, stopped or filled."""
    if command == "kubeconfig":
        print(kubeconfig)
        return 0
    if command == "images":
        raise ClusterError(
            f"{KUBECONFIG_VARIABLE} is set, so images go to your cluster by your own means (a registry, or its node's tools)"
        )
    say(f"{KUBECONFIG_VARIABLE}={kubeconfig} is used as it is; unset it to work with a cluster of this tool")
    return 0


def _print_status(found: cluster.Status) -> int:
    if found.tier is None and not found.running and not found.state.folder.exists():
        print("down")
        return 1
    print(f"{'up' if found.up else 'broken'} ({found.tier or 'unfinished start'})")
    print(f"running: {', '.join(sorted(found.running)) or 'nothing'}")
    if found.missing:
        print(f"missing: {', '.join(sorted(found.missing))}")
    if not found.up:
        print("`python -m tests.cluster up` cleans up and starts again; `down` cleans up")
    return 0 if found.up else 1
