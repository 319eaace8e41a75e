"""Talk to any cluster: everything goes through a kubeconfig and kubectl. `cluster.py`, `control_plane.py` and `cli.py` use it."""

import base64
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kubernetes.client import ApiClient, ApiException
from kubernetes.config import new_client_from_config
from urllib3.exceptions import HTTPError

from tests.cluster.cache import clusters_dir
from tests.cluster.commands import run
from tests.cluster.errors import ClusterError
from tests.cluster.pki import write_kubeconfig, write_private
from tests.cluster.programs import kubectl_path

CALL_SECONDS = 60.0
TOKEN_SECONDS = 24 * 3600
KUBECONFIG_VARIABLE = "KUBECONFIG"


def user_cluster() -> str | None:
    """The value of `KUBECONFIG` when the user points at a cluster of their own.

    None for a file that `up` wrote for them to use: then the cluster is this tool's after all, up or not.
    """
    given = os.environ.get(KUBECONFIG_VARIABLE)
    if not given or Path(given).expanduser().absolute().is_relative_to(clusters_dir()):
        return None
    return given


@lru_cache(maxsize=8)
def _client(kubeconfig: Path, _written_ns: int) -> ApiClient:
    """A client for what is in the file now: a cluster that is started anew writes it anew."""
    return new_client_from_config(str(kubeconfig))


@dataclass(frozen=True, slots=True)
class Access:
    """A kubeconfig file, and what one does with it."""

    kubeconfig: Path

    def kubectl(self, *arguments: str, text_in: str | None = None, timeout_seconds: float = CALL_SECONDS) -> str:
        """What kubectl printed. Raises CommandFailed with its message."""
        # What it learned of the kinds there are lies beside the kubeconfig: a new cluster has the old one's address.
        options = ["--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.kubeconfig.parent / "kubectl-cache")]
        argv = [kubectl_path(of_user=user_cluster() is not None), *options, *arguments]
        return run(argv, timeout_seconds=timeout_seconds, text_in=text_in)

    def learn_kinds(self) -> None:
        """Have kubectl look again which kinds there are: until it does (10 minutes), one before 1.22 knows no new short name."""
        self.kubectl("api-resources", "-o", "name")

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at an API path like `/api/v1/namespaces`. Raises ClusterError with the server's answer.

        Over a connection that stays open: a kubectl takes a third of a second of a core, and tests that wait look often.
        """
        return self._call("GET", path)

    def patch(self, path: str, change: dict[str, Any]) -> dict[str, Any]:
        """The object at an API path after a strategic merge: of a `/status` too, which kubectl before 1.24 cannot. Raises ClusterError."""
        return self._call("PATCH", path, change)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        client = _client(self.kubeconfig, self.kubeconfig.stat().st_mtime_ns)
        sent = {} if body is None else {"Content-Type": "application/strategic-merge-patch+json"}
        try:
            _, url, headers, data, *_ = client.param_serialize(method, path, header_params=sent, body=body, auth_settings=["BearerToken"])
            answer = client.call_api(method, url, header_params=headers, body=data, _request_timeout=CALL_SECONDS)
            text = answer.read().decode(errors="replace")
        except (OSError, ApiException, HTTPError) as error:
            raise ClusterError(f"{method} {path}: {error}") from error
        if answer.status != 200:
            raise ClusterError(f"{method} {path}: {answer.status} {answer.reason}: {text}")
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ClusterError(f"{path} is not an object: {found!r}")
        return found

    def apply(self, manifest: dict[str, Any], *, field_manager: str = "alise-tests") -> None:
        """Server-side apply one object."""
        self.kubectl("apply", "--server-side", "--field-manager", field_manager, "-f", "-", text_in=json.dumps(manifest))

    def kubeconfig_for(self, namespace: str, service_account: str, into: Path) -> Path:
        """Write a kubeconfig with the rights of a ServiceAccount (which must exist) and return its path.

        The token comes from the TokenRequest API, is good for a day and ends with the ServiceAccount. This is how the operator runs
        outside of a pod with exactly the rights it has inside.
        """
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": TOKEN_SECONDS}}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        token = json.loads(self.kubectl("create", "--raw", path, "-f", "-", text_in=json.dumps(request)))["status"]["token"]
        cluster = self._config()["clusters"][0]["cluster"]
        if "certificate-authority-data" not in cluster:
            raise ClusterError(f"the cluster in {self.kubeconfig} has no certificate authority; use a kubeconfig that has one")
        return write_kubeconfig(into, cluster["server"], base64.b64decode(cluster["certificate-authority-data"]), {"token": token})

    def flattened(self, into: Path) -> "Access":
        """The current context alone, all of it in one private file. What a user's `KUBECONFIG` means, whatever it is made of."""
        write_private(into, json.dumps(self._config()).encode())
        return Access(into)

    def _config(self) -> dict[str, Any]:
        # By the environment, since KUBECONFIG may be several paths, which --kubeconfig does not take.
        argv = [kubectl_path(of_user=user_cluster() is not None), "config", "view", "--raw", "--minify", "--flatten", "-o", "json"]
        config: dict[str, Any] = json.loads(run(argv, timeout_seconds=CALL_SECONDS, env={KUBECONFIG_VARIABLE: str(self.kubeconfig)}))
        return config
