"""How the operator finds the API server."""

import pytest

from alise_operator.kube import in_cluster_server


@pytest.mark.parametrize(
    ("env", "server"),
    [
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://10.0.0.1:6443", id="an address and a port"
        ),
        pytest.param({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "https://10.0.0.1:443", id="no port named"),
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, "https://[fd00::1]:443", id="an IPv6 address"
        ),
    ],
)
def test_a_pod_reaches_the_api_server_by_the_address_in_its_environment(env: dict[str, str], server: str) -> None:
    assert in_cluster_server(env) == server
