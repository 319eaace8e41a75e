"""What kubectl prints when it fails becomes a sentence that says what to do. The words are those of kubectl 1.20 to 1.36."""

import pytest

from kubectl_alise.errors import KubectlError, NoClusterError, NotAllowedError, NotFoundError, PluginError
from kubectl_alise.refusals import refusal

WORDS = [
    pytest.param(
        "The connection to the server localhost:8080 was refused - did you specify the right host or port?",
        NoClusterError, "set KUBECONFIG", id="no kubeconfig",
    ),
    pytest.param("error: stat /nope: no such file or directory", NoClusterError, "/nope does not exist", id="no such kubeconfig"),
    pytest.param('error: context "prod" does not exist', NoClusterError, "no context prod", id="an unknown context"),
    pytest.param(
        "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?",
        NoClusterError, "does not answer", id="a server that is down",
    ),
    pytest.param(
        "Unable to connect to the server: dial tcp: lookup api.example.com: no such host", NoClusterError, "no such host", id="no such host"
    ),
    pytest.param(
        'error: the server doesn\'t have a resource type "aliseengines"', NotFoundError, "does not know AliseEngines", id="alise is missing"
    ),
    pytest.param(
        'Error from server (NotFound): aliseengines.alise.dev "chat" not found', NotFoundError, "no AliseEngine chat", id="no such resource"
    ),
    pytest.param('Error from server (NotFound): pods "chat-1" not found', NotFoundError, "no pod chat-1", id="no such pod"),
    pytest.param('Error from server: pods "chat-1" not found', NotFoundError, "no pod chat-1", id="a pod that has just gone"),
    pytest.param(
        'error: unable to upgrade connection: container not found ("scheduler")', NotFoundError, "does not run", id="no container yet"
    ),
    pytest.param(
        'Error from server (Forbidden): pods "a" is forbidden: User "u" cannot create resource "pods/exec" in API group ""',
        NotAllowedError, 'cannot create resource "pods/exec"', id="no right",
    ),
    pytest.param("error: You must be logged in to the server (Unauthorized)", NotAllowedError, "log in again", id="not logged in"),
    pytest.param("error: something new", KubectlError, "something new", id="anything else in kubectl's own words"),
    pytest.param("", KubectlError, "no reason", id="nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "kind", "part"), WORDS)
def test_a_failure_says_what_to_do(words: str, kind: type[PluginError], part: str) -> None:
    error = refusal(words)
    assert type(error) is kind
    assert part in str(error)
