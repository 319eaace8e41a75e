"""The node: kube-scheduler, containerd, kubelet and kube-proxy beside a control plane; pods start and Services work.

containerd and kubelet share a mount namespace of their own. Whatever they mount (root file systems, volumes, network namespaces) is
seen by no other process and is gone with the last process in it, however that ended. The paths that are built into them
(footprint.BUILT_IN_PATHS) lead to our folder there.

Pods get their addresses from the `ptp` plugin: a routed link per pod and no bridge, so that nothing depends on br_netfilter and no
interface outlives its pod. `cluster.py` starts it.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import images, processes
from tests.cluster.build import Binaries
from tests.cluster.cache import cache_dir
from tests.cluster.control_plane import Started, component_kubeconfig, free_port, get
from tests.cluster.errors import ClusterError
from tests.cluster.footprint import BUILT_IN_PATHS, Footprint
from tests.cluster.pki import Authority
from tests.cluster.state import State

NAME = "node"
NAMES = ("kube-proxy", "kubelet", "kube-scheduler", "containerd")
PAUSE_IMAGE = "localhost/alise/pause:1"
CNI_PLUGINS = "/usr/lib/cni"  # where Debian's containernetworking-plugins puts them
READY_SECONDS = 120.0

PAUSE_SOURCE = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void leave(int number) { (void)number; _exit(0); }
static void reap(int number) { (void)number; while (waitpid(-1, NULL, WNOHANG) > 0) {} }
int main(void) {
  signal(SIGINT, leave); signal(SIGTERM, leave); signal(SIGCHLD, reap);
  for (;;) pause();
}
"""

# $1: the folder that holds what the built-in paths lead to; then the paths, "--", and the program.
ENTER_NAMESPACE = """
set -e
own=$1; shift
mount --make-rshared /
while [ "$1" != -- ]; do mkdir -p "$own$1"; mount --bind "$own$1" "$1"; shift; done
shift
exec "$@"
"""

Running = dict[str, "subprocess.Popen[bytes]"]


@dataclass(frozen=True, slots=True)
class Node:
    """What the parts of the node have in common."""

    at: State
    binaries: Binaries
    footprint: Footprint
    control_plane: Started
    address: str

    @property
    def authority(self) -> Authority:
        """The cluster's certificate authority."""
        return self.control_plane.authority


def start(node: Node, running: Running) -> None:
    """Start everything and wait until the node is Ready and its Services answer. Raises NotReady with logs otherwise."""
    _start_scheduler(node, running)
    _start_containerd(node, running)
    _start_kubelet(node, running)
    _start_proxy(node, running)
    admin = node.authority.trust(node.authority.client("probe", "alise-probe", "system:masters"))
    server = node.control_plane.server
    processes.wait_ready(
        node.at,
        "the node to be Ready",
        lambda: _is_ready(get(server, f"/api/v1/nodes/{NAME}", admin)),
        running,
        timeout_seconds=READY_SECONDS,
    )
    service = f"https://{node.footprint.first_service}:443"
    processes.wait_ready(
        node.at, "the API server's Service", lambda: get(service, "/readyz", admin) is not None, running, timeout_seconds=READY_SECONDS
    )


def _is_ready(body: bytes | None) -> bool:
    conditions = json.loads(body)["status"].get("conditions", []) if body else []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _start_scheduler(node: Node, running: Running) -> None:
    kubeconfig = component_kubeconfig(node.at, node.authority, node.control_plane.server, "kube-scheduler", "system:kube-scheduler")
    running["kube-scheduler"] = processes.start(
        node.at,
        "kube-scheduler",
        [
            str(node.binaries.path("kube-scheduler")),
            f"--kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            "--port=0",
        ],
    )


def containerd_config(root: Path, state: Path, socket: Path, cni: Path, snapshotter: str) -> str:
    """containerd's configuration (TOML). `root` outlives the cluster, `state` does not."""
    quoted = {key: json.dumps(str(value)) for key, value in {"root": root, "state": state, "socket": socket, "cni": cni}.items()}
    return f"""version = 2
root = {quoted["root"]}
state = {quoted["state"]}
# The opt plugin would make /opt/containerd; the others are snapshotters that this machine need not have.
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = {quoted["socket"]}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = {json.dumps(PAUSE_IMAGE)}
# Without CAP_SYS_RESOURCE runc would die of lowering an OOM score ("can't get final child's PID from pipe: EOF").
restrict_oom_score_adj = true
stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {json.dumps(CNI_PLUGINS)}
conf_dir = {quoted["cni"]}

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = {json.dumps(snapshotter)}

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def cni_config(pods: str) -> str:
    """The network of the pods: addresses counted up in the range, a routed link each, host ports."""
    addresses = {"type": "host-local", "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugins = [{"type": "ptp", "ipMasq": True, "ipam": addresses}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": "0.4.0", "name": "alise", "plugins": plugins}, indent=2)


def _start_containerd(node: Node, running: Running) -> None:
    at, root = node.at, cache_dir() / "containerd"
    socket = images.socket_path(at)
    socket.parent.mkdir(mode=0o700, exist_ok=True)
    (at.folder / "cni").mkdir(exist_ok=True)
    (at.folder / "cni" / "10-alise.conflist").write_text(cni_config(node.footprint.pods), encoding="utf-8")
    config = at.folder / "containerd.toml"
    text = containerd_config(root, at.folder / "containerd", socket, at.folder / "cni", images.snapshotter(at))
    config.write_text(text, encoding="utf-8")
    _run_containerd(at, config, running)
    left = images.ctr(at, "containers", "list", "--quiet").split()
    if left:
        # Records of an earlier cluster's containers. kubelet would take them for its own, so they go before it starts.
        images.ctr(at, "containers", "remove", *left, timeout_seconds=300)
        processes.end(at, ["containerd"], grace_seconds=10)
        running.pop("containerd").wait(timeout=10)
        _run_containerd(at, config, running)
    pause = at.folder / "pause.tar"
    program = images.compile_static(PAUSE_SOURCE, at.folder / "pause")
    images.import_one(at, images.write_archive(pause, PAUSE_IMAGE, images.Program("/pause", program)))


def _run_containerd(at: State, config: Path, running: Running) -> None:
    own = str(at.folder / "paths")
    inside = ["sh", "-c", ENTER_NAMESPACE, "sh", own, *BUILT_IN_PATHS, "--", "containerd", "--config", str(config)]
    running["containerd"] = processes.start(at, "containerd", ["unshare", "--mount", "--propagation", "private", *inside])

    def answers() -> bool:
        try:
            images.ctr(at, "version", timeout_seconds=5)
        except ClusterError:
            return False
        return True

    processes.wait_ready(at, "containerd to answer", answers, {"containerd": running["containerd"]}, timeout_seconds=READY_SECONDS)


def kubelet_config(authority: Path, certificate: Path, key: Path, port: int, cgroup: str) -> dict[str, object]:
    """kubelet's configuration: nothing it would do to the machine that can be switched off is on."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "port": port,
        "healthzPort": 0,
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": str(authority)}},
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failSwapOn": False,
        "oomScoreAdj": 0,
        # Images cannot be pulled again, so none is ever collected; the disk is the machine's and is shared with others.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        # The defaults (5 calls a second) keep a handful of pods waiting for their secrets and for their deletion.
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
    }


def _start_kubelet(node: Node, running: Running) -> None:
    at = node.at
    serving = node.authority.server("kubelet-serving", NAME, [NAME, node.address])
    kubeconfig = component_kubeconfig(at, node.authority, node.control_plane.server, "kubelet", f"system:node:{NAME}", "system:nodes")
    port = free_port(node.address)
    config = kubelet_config(node.authority.pair.certificate, serving.certificate, serving.key, port, node.footprint.cgroup)
    (at.folder / "kubelet.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    running["kubelet"] = processes.start(
        at,
        "kubelet",
        [
            "nsenter",
            f"--mount=/proc/{running['containerd'].pid}/ns/mnt",
            "--",
            str(node.binaries.path("kubelet")),
            f"--config={at.folder / 'kubelet.json'}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={NAME}",
            f"--node-ip={node.address}",
            "--container-runtime=remote",
            f"--container-runtime-endpoint=unix://{images.socket_path(at)}",
            f"--volume-plugin-dir={at.folder / 'volume-plugins'}",
        ],
    )


def _start_proxy(node: Node, running: Running) -> None:
    kubeconfig = component_kubeconfig(node.at, node.authority, node.control_plane.server, "kube-proxy", "system:kube-proxy")
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "hostnameOverride": NAME,
        "clusterCIDR": node.footprint.pods,
        "bindAddress": "0.0.0.0",
        "healthzBindAddress": f"127.0.0.1:{free_port()}",
        "metricsBindAddress": f"127.0.0.1:{free_port()}",
        "oomScoreAdj": 0,
        # Leave the machine's connection tracking limits alone.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    (node.at.folder / "kube-proxy.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    running["kube-proxy"] = processes.start(
        node.at, "kube-proxy", [str(node.binaries.path("kube-proxy")), f"--config={node.at.folder / 'kube-proxy.json'}"]
    )
