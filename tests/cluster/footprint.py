"""What a node changes on the machine outside of its own folder, written down before it is changed, and undone from that record.

Mounts are not among it: containerd and kubelet live in a mount namespace of their own (see node.py), which ends with them. `cluster.py` and
`node.py` call it.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster import cgroups, iptables, machine
from tests.cluster.commands import run
from tests.cluster.errors import ClusterError, UnsupportedMachine
from tests.cluster.processes import wait_until
from tests.cluster.state import State

# Set by kubelet, kube-proxy or us; restored at the end.
SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# Paths that kubelet, containerd and the CNI plugins have built in. The node sees folders of ours there; the machine's own stay untouched.
BUILT_IN_PATHS = (
    "/run/containerd",
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)
LINKS_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """The record: enough to undo everything."""

    pods: str
    services: str
    cgroup: str
    sysctls: dict[str, str]
    tables_before: dict[str, list[str]]
    created_folders: list[str]

    @property
    def first_service(self) -> str:
        """The address of the API server's own Service."""
        return str(machine.Network(self.services)[1])


def _file(at: State) -> Path:
    return at.folder / "footprint.json"


def cgroup_name(at: State) -> str:
    """The control group of this cluster's pods: known without any record."""
    return f"alise-{hashlib.sha256(str(at.folder).encode()).hexdigest()[:8]}"


def load(at: State) -> Footprint | None:
    """The record of a node that was started and not yet cleaned up."""
    try:
        return Footprint(**json.loads(_file(at).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def prepare(at: State) -> Footprint:
    """Write the record, then make the changes that are ours to make. Raises UnsupportedMachine where another node seems to run."""
    chains = iptables.chains_in_use()
    if chains:
        raise UnsupportedMachine(
            f"iptables holds chains of another Kubernetes or CNI ({chains[0]} and {len(chains) - 1} more): this machine may be a "
            "node already. Set KUBECONFIG to that cluster. If they are remains of one that is gone, remove them or restart the machine"
        )
    ranges = machine.free_ranges(machine.routed_networks())
    footprint = Footprint(
        pods=str(ranges.pods),
        services=str(ranges.services),
        cgroup=cgroup_name(at),
        sysctls={name: value for name in SYSCTLS if (value := _read_sysctl(name)) is not None},
        tables_before=iptables.tables_in_use(),
        created_folders=[path for path in BUILT_IN_PATHS if not Path(path).exists()],
    )
    partial = _file(at).with_suffix(".partial")
    partial.write_text(json.dumps(asdict(footprint), indent=2), encoding="utf-8")
    partial.rename(_file(at))
    for path in footprint.created_folders:
        Path(path).mkdir(parents=True, exist_ok=True)
    cgroups.create(footprint.cgroup)
    _write_sysctl("net/ipv4/ip_forward", "1")
    return footprint


def undo(footprint: Footprint) -> None:
    """Put the machine back. The node's processes must have ended. May be called again after a failure."""
    cgroups.remove(footprint.cgroup)
    _remove_links(machine.Network(footprint.pods))
    iptables.remove_own(footprint.tables_before)
    for name, value in footprint.sysctls.items():
        if _read_sysctl(name) != value:
            _write_sysctl(name, value)
    mounted = _mounted_anywhere()
    for path in reversed(footprint.created_folders):
        if path in mounted:  # another node's by now; removing the folder would take the mount from it
            continue
        try:
            Path(path).rmdir()
        except OSError:  # gone already, or in use by another process by now
            continue


def _mounted_anywhere() -> set[str]:
    """Mount points in every mount namespace on the machine."""
    seen, found = set[str](), set[str]()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            namespace = os.readlink(process / "ns" / "mnt")
            if namespace not in seen:
                found.update(line.split()[4] for line in (process / "mountinfo").read_text(encoding="utf-8").splitlines())
                seen.add(namespace)
        except OSError:  # it ended meanwhile
            continue
    return found


def _remove_links(pods: machine.Network) -> None:
    """Remove the host's ends of the pods' links. The kernel removes them with the pods' network namespaces, a little later."""
    if wait_until(lambda: not links_to(pods), timeout_seconds=1.0):
        return
    for link in links_to(pods):
        run(["sh", "-c", 'ip link delete "$1" 2>/dev/null || ! ip link show "$1" 2>/dev/null', "sh", link], timeout_seconds=10)
    if not wait_until(lambda: not links_to(pods), timeout_seconds=LINKS_SECONDS):
        raise ClusterError(f"network links of pods are still there after {LINKS_SECONDS:g} s: {', '.join(sorted(links_to(pods)))}")


def links_to(pods: machine.Network) -> set[str]:
    """The host's links that lead to addresses of pods."""
    routes = json.loads(run(["ip", "-4", "-j", "route", "show", "root", str(pods)], timeout_seconds=10) or "[]")
    return {route["dev"] for route in routes if "dev" in route}


def _read_sysctl(name: str) -> str | None:
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return None


def _write_sysctl(name: str, value: str) -> None:
    try:
        (Path("/proc/sys") / name).write_text(value)
    except OSError as error:
        raise ClusterError(f"cannot set {name.replace('/', '.')} to {value}: {error}") from error
