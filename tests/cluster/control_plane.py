"""etcd, kube-apiserver and kube-controller-manager: an API server that behaves as in production, without a node.

`with ControlPlane() as cp:` is what tests use: free ports, a folder of its own, gone at the end; several run side by side. `tests/operator`
and `tests/bench` start one, and `cluster.py` starts one with its node.
"""

import contextlib
import http.client
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.cluster import processes, state
from tests.cluster.access import Access, user_cluster
from tests.cluster.errors import ClusterError, NotReady
from tests.cluster.pki import Authority, certificate_user, write_kubeconfig
from tests.cluster.programs import Programs, control_plane_programs
from tests.cluster.state import State

READY_SECONDS = 120.0
# Ports are chosen before they are bound, so another process may take one in between.
START_ATTEMPTS = 3
NAMES = ("kube-controller-manager", "kube-apiserver", "etcd")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the API server listens and what it tells others about itself."""

    bind: str = "127.0.0.1"
    advertise: str = "127.0.0.1"
    service_range: str = "10.43.0.0/16"
    first_service: str = "10.43.0.1"


@dataclass(frozen=True, slots=True)
class Started:
    """A control plane that answers."""

    access: Access
    authority: Authority
    server: str
    start_seconds: float


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that is free now."""
    return free_ports(1, address)[0]


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """As many different TCP ports that are free now."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((address, 0))
        return [probe.getsockname()[1] for probe in probes]


def start(
    at: State, programs: Programs, addresses: Addresses, running: dict[str, "subprocess.Popen[bytes]"], flags: Sequence[str] = ()
) -> Started:
    """Start the control plane in its folder and wait until it answers; what was started is put into `running` at once.

    `flags`: more of them for the API server. Raises NotReady with the tail of the log of what did not come up.
    """
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            return _start_once(at, programs, addresses, running, flags)
        except NotReady as error:
            if attempt == START_ATTEMPTS or "address already in use" not in str(error):
                raise
            processes.end(at, NAMES)
            reap(running)
    raise AssertionError("the loop returns or raises")


def _start_once(
    at: State, programs: Programs, addresses: Addresses, running: dict[str, "subprocess.Popen[bytes]"], flags: Sequence[str]
) -> Started:
    began = time.monotonic()
    authority = Authority(at.folder / "pki")
    etcd_url = _start_etcd(at, programs, running)
    port = free_port(addresses.bind)
    private, public = authority.signing_keys("service-account")
    own_names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
        "127.0.0.1",
        addresses.first_service,
        addresses.advertise,
    ]
    serving = authority.server("apiserver", "kube-apiserver", list(dict.fromkeys(own_names)))
    to_kubelet = authority.client("apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters")
    running["kube-apiserver"] = processes.start(
        at,
        "kube-apiserver",
        [
            str(programs.apiserver),
            f"--etcd-servers={etcd_url}",
            f"--secure-port={port}",
            f"--bind-address={addresses.bind}",
            f"--advertise-address={addresses.advertise}",
            # Kubernetes refuses a loopback address among endpoints; nothing in the cluster could reach it either.
            *(["--endpoint-reconciler-type=none"] if addresses.advertise.startswith("127.") else []),
            f"--cert-dir={at.folder / 'pki'}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={authority.pair.certificate}",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={private}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={addresses.service_range}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={to_kubelet.certificate}",
            f"--kubelet-client-key={to_kubelet.key}",
            *flags,
        ],
    )
    server = f"https://{addresses.bind}:{port}"
    admin = authority.client("admin", "alise-admin", "system:masters")
    access = Access(write_kubeconfig(at.kubeconfig, server, authority.pair.certificate.read_bytes(), certificate_user(admin)))
    context = authority.trust(admin)
    processes.wait_ready(
        at, "the API server's /readyz", lambda: get(server, "/readyz", context) is not None, running, timeout_seconds=READY_SECONDS
    )
    if programs.controller_manager is not None:
        _start_controller_manager(at, programs, authority, server, private, running)
        # Pods cannot be created before the controller manager has created this account.
        path = "/api/v1/namespaces/default/serviceaccounts/default"
        processes.wait_ready(
            at, "the default service account", lambda: get(server, path, context) is not None, running, timeout_seconds=READY_SECONDS
        )
    return Started(access, authority, server, time.monotonic() - began)


def _start_etcd(at: State, programs: Programs, running: dict[str, "subprocess.Popen[bytes]"]) -> str:
    shutil.rmtree(at.folder / "etcd", ignore_errors=True)  # of an attempt with other ports
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    running["etcd"] = processes.start(
        at,
        "etcd",
        [
            str(programs.etcd),
            f"--data-dir={at.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ],
    )
    return client


def _start_controller_manager(
    at: State,
    programs: Programs,
    authority: Authority,
    server: str,
    service_account_key: Path,
    running: dict[str, "subprocess.Popen[bytes]"],
) -> None:
    kubeconfig = component_kubeconfig(at, authority, server, "kube-controller-manager", "system:kube-controller-manager", "system:masters")
    serving = authority.server("controller-manager", "kube-controller-manager", ["127.0.0.1"])
    running["kube-controller-manager"] = processes.start(
        at,
        "kube-controller-manager",
        [
            str(programs.controller_manager),
            f"--kubeconfig={kubeconfig}",
            f"--service-account-private-key-file={service_account_key}",
            f"--root-ca-file={authority.pair.certificate}",
            # One identity with all rights: a separate one per controller takes seconds to make at every start.
            "--use-service-account-credentials=false",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            # The unauthenticated port, which later versions no longer have.
            *(["--port=0"] if programs.built_here else []),
        ],
    )


def component_kubeconfig(at: State, authority: Authority, server: str, name: str, user: str, group: str | None = None) -> Path:
    """A kubeconfig with the built-in rights of one of Kubernetes' own components."""
    return write_kubeconfig(
        at.folder / f"{name}.kubeconfig",
        server,
        authority.pair.certificate.read_bytes(),
        certificate_user(authority.client(name, user, group)),
    )


def get(server: str, path: str, context: ssl.SSLContext) -> bytes | None:
    """The body of an HTTPS GET that answers 200 within two seconds; None otherwise."""
    connection = http.client.HTTPSConnection(server.removeprefix("https://"), timeout=2.0, context=context)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.read() if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def reap(running: dict[str, "subprocess.Popen[bytes]"]) -> None:
    """Collect the exit status of processes that were ended, so that none stays as a zombie of this process."""
    for process in running.values():
        process.wait(timeout=30)
    running.clear()


def sweep() -> None:
    """End the control planes whose owner died without doing so (a killed test run)."""
    for left in state.abandoned():
        processes.end(left)
        left.remove()


class ControlPlane:
    """A control plane for the length of a `with` block; with `KUBECONFIG` set, the user's cluster instead, which is left as it is."""

    def __init__(self, *api_server_flags: str) -> None:
        """Start nothing yet. The flags are for an API server of ours."""
        self._flags = api_server_flags
        self._state: State | None = None
        self._lock: IO[str] | None = None
        self._access: Access | None = None
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.start_seconds = 0.0

    def __enter__(self) -> Self:
        """Start, or connect. Raises ClusterError when that fails; nothing is left then."""
        own = user_cluster()
        if own is not None:
            self._folder = tempfile.TemporaryDirectory(prefix="alise-kubeconfig-")
            self._access = Access(Path(own)).flattened(Path(self._folder.name) / "kubeconfig")
            return self
        sweep()
        programs = control_plane_programs()
        self._state, self._lock = state.new_owned()
        try:
            started = start(self._state, programs, Addresses(), self._running, self._flags)
        except BaseException:
            self.close()
            raise
        self._access, self.start_seconds = started.access, started.start_seconds
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End what was started and remove its folder."""
        self.close()

    def close(self) -> None:
        """As leaving the block; a second call does nothing."""
        if self._state is not None and self._lock is not None:
            processes.end(self._state)
            reap(self._running)
            self._state.remove()
            self._state.lock.unlink(missing_ok=True)
            self._lock.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._state = self._lock = self._access = self._folder = None

    @property
    def belongs_to_user(self) -> bool:
        """Whether the cluster is the user's, and not one that this class has started."""
        return self._folder is not None

    @property
    def access(self) -> Access:
        """kubectl and more, as administrator. Raises ClusterError outside of the block."""
        if self._access is None:
            raise ClusterError("the control plane is not running: use it inside `with ControlPlane() as cp:`")
        return self._access

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.access.kubeconfig

    def kubeconfig_for(self, namespace: str, service_account: str) -> Path:
        """A kubeconfig with the rights of an existing ServiceAccount."""
        return self.access.kubeconfig_for(
            namespace, service_account, self.kubeconfig.with_name(f"{namespace}.{service_account}.kubeconfig")
        )

    def logs(self) -> Mapping[str, str]:
        """The end of each process's log; empty for the user's own cluster."""
        if self._state is None:
            return {}
        return {name: processes.log_tail(self._state, name) for name in self._running}
