"""The Debian packages the cluster is made of, installed where they are missing.

Knows package names and apt-get; what each package is for is written beside its name. `cli.py`, `build.py` and `image_tools.py` call it.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster.cache import cache_dir, locked
from tests.cluster.commands import run
from tests.cluster.errors import CommandFailed, UnsupportedMachine
from tests.cluster.progress import step

# To compile Kubernetes: its Go, the shell tools its generators call, and the reflect2 that works with that Go.
BUILD = ("golang-1.19-go", "golang-github-modern-go-reflect2-dev", "gcc", "libc6-dev")
CONTROL_PLANE = ("etcd-server",)
NODE = (
    "containerd",
    "runc",
    "containernetworking-plugins",  # ptp, host-local, portmap
    "conntrack",
    "iptables",
    "nftables",  # removes the empty tables that iptables leaves
    "iproute2",
    "ipset",
    "ebtables",
    "socat",  # kubectl port-forward
    "gcc",  # the pause program
    "libc6-dev",
)
# Prometheus and promtool, which the tests of alerts and of the dashboard run.
MONITORING = ("prometheus",)
# A browser, in which the tests look at the operator's page, and the letters that it draws.
BROWSER = ("chromium", "fonts-dejavu-core")

INSTALL_SECONDS = 1200
LISTS_SECONDS = 300.0
LISTS_LOCKED = "Could not get lock /var/lib/apt/lists"
OWN_CLUSTER = "set KUBECONFIG to a cluster of your own, or KUBEBUILDER_ASSETS to a folder with `etcd` and `kube-apiserver`"


def missing_packages(wanted: Sequence[str], status_file: Path = Path("/var/lib/dpkg/status")) -> tuple[str, ...]:
    """The wanted packages that dpkg does not know as installed, in the order given."""
    installed = _installed(status_file.read_text(encoding="utf-8", errors="replace")) if status_file.exists() else frozenset[str]()
    return tuple(dict.fromkeys(name for name in wanted if name not in installed))


def _installed(status: str) -> frozenset[str]:
    names = set()
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" ok installed"):
            names.add(fields["Package"])
    return frozenset(names)


def is_debian_12(os_release: str) -> bool:
    """Whether `/etc/os-release` says Debian 12: the release whose Kubernetes source and Go this tool builds."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    return fields.get("ID", "").strip('"') == "debian" and fields.get("VERSION_ID", "").strip('"') == "12"


def require_supported_machine() -> None:
    """Raises UnsupportedMachine unless this is Debian 12 and we are root."""
    release = Path("/etc/os-release")
    if not (release.exists() and is_debian_12(release.read_text(encoding="utf-8"))):
        raise UnsupportedMachine(f"The cluster tool builds its cluster on Debian 12 only; here, {OWN_CLUSTER}.")
    if os.geteuid() != 0:
        raise UnsupportedMachine(f"The cluster tool needs root (packages, containers, network); run it as root, or {OWN_CLUSTER}.")


def install(wanted: Sequence[str]) -> None:
    """Install what is missing of `wanted`; nothing is called when nothing is. Raises UnsupportedMachine or CommandFailed."""
    if not missing_packages(wanted):
        return
    require_supported_machine()
    # apt-get waits for dpkg's lock, but not for that of the lists, which `make run` would take twice: for the cluster and for the images.
    with locked(cache_dir() / "apt.lock"):
        _install_missing(missing_packages(wanted))


def _install_missing(missing: Sequence[str]) -> None:
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise UnsupportedMachine(f"apt-get is not on PATH, so {', '.join(missing)} cannot be installed; install them, or {OWN_CLUSTER}.")
    env = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    apt = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=600")
    with step(f"install Debian packages: {' '.join(missing)}"):
        retried(lambda: run([*apt, "update"], timeout_seconds=INSTALL_SECONDS, env=env))
        run([*apt, "install", "--no-install-recommends", *missing], timeout_seconds=INSTALL_SECONDS, env=env)


def retried(call: Callable[[], object], *, for_seconds: float = LISTS_SECONDS, every_seconds: float = 2.0) -> None:
    """Call again while another apt-get (Debian updates its lists after every boot) holds the lock of the lists."""
    ends = time.monotonic() + for_seconds
    while True:
        try:
            call()
            return
        except CommandFailed as error:
            if LISTS_LOCKED not in str(error) or time.monotonic() > ends:
                raise
        time.sleep(every_seconds)
