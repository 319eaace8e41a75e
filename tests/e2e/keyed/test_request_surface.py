"""The whole request surface inside the CPU image: our pod beside a pod of stock vLLM of the same image, request by request.

What passes on a developer's machine can fail in the image, which has no compiler.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from alise_contract.names import ENGINE_PORT
from tests.cluster.resource import NAMESPACE, Resource, wait_until
from tests.e2e.conftest import READY_SECONDS
from tests.e2e.keyed.conftest import KEY_A, bearer
from tests.e2e.keyed.stock import STOCK_POD
from tests.surface.compare import WANTED
from tests.surface.fuzz import fuzz
from tests.surface.run import OURS, STOCK, Result, Server, play
from tests.tools import run_cluster
from tests.tools.run_forward import forwarded

pytestmark = pytest.mark.e2e

# A container that is started again waits first, longer each time.
REVIVE_SECONDS = 240.0


@pytest.fixture(scope="module")
def servers(target: run_cluster.Target, keyed: Resource) -> Iterator[tuple[Server, Server]]:
    """Stock and ours, both serving; each is started again by its kubelet when its engine dies."""
    limit = f"--timeout={READY_SECONDS:.0f}s"
    keyed.kubectl("wait", "--for=condition=Ready", f"pod/{STOCK_POD}", limit, timeout_seconds=READY_SECONDS + 10)
    with ExitStack() as stack:
        urls = [_reachable(stack, target, pod) for pod in (STOCK_POD, keyed.only_pod())]
        yield _server(STOCK, urls[0]), _server(OURS, urls[1], bearer(KEY_A))


@pytest.fixture(scope="module")
def played(servers: tuple[Server, Server]) -> Result:
    return play(*servers)


def test_every_request_is_answered_as_stock_answers_it(played: Result) -> None:
    assert played.figures() | {"requests_compared": 0} == {
        "requests_compared": 0,
        "requests_unlike_stock": 0,
        "requests_stock_dies_of": 1,
        "engine_deaths": 0,
    }, played.report()
    assert not played.ended_early, played.report()


def test_what_was_compared_with_stock_was_ours(played: Result) -> None:
    """A server without our middleware would be like stock in everything."""
    assert {wanted.reason for wanted in WANTED} == set(played.wanted), played.report()


def test_no_generated_request_gets_a_5xx_that_stock_does_not_give(servers: tuple[Server, Server], played: Result) -> None:
    fuzzed = fuzz(*servers)
    assert (fuzzed.worse, fuzzed.engine_deaths) == ((), ()), fuzzed.report()


def test_the_engine_was_never_started_again(keyed: Resource, played: Result) -> None:
    assert keyed.engine_restarts(keyed.only_pod()) == 0, played.report()


# --- helpers --------------------------------------------------------------------------------------------------------------------------


def _reachable(stack: ExitStack, target: run_cluster.Target, pod: str) -> str:
    """The pod's URL: our node's pods are reached from here, those of another cluster through kubectl."""
    if target.belongs_to_user:
        return stack.enter_context(forwarded(target.access, pod, NAMESPACE))
    address = target.access.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")["status"]["podIP"]
    return f"http://{address}:{ENGINE_PORT}"


def _server(name: str, url: str, headers: dict[str, str] | None = None) -> Server:
    def healthy() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def revive() -> None:
        wait_until(f"{name} at {url} healthy again", healthy, REVIVE_SECONDS)

    return Server(name, url, revive, headers or {})
