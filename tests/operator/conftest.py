"""Fixtures of the operator's tests: one real API server for the session, and an operator process against it."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.cluster.control_plane import ControlPlane
from tests.operator.builders import raw_spec
from tests.operator.control_plane import Engine, OperatorProcess, install, running_operator
from tests.operator.world import World


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as cp:
        install(cp)
        yield cp


@pytest.fixture(scope="session")
def operator(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    with running_operator(control_plane, tmp_path_factory.mktemp("operator")) as process:
        yield process


@pytest.fixture
def namespace(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own; it is deleted at the end without waiting."""
    name = f"t-{abs(hash(request.node.nodeid)) % 10**10}"
    control_plane.access.kubectl("create", "namespace", name)
    yield name
    control_plane.access.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def engine(control_plane: ControlPlane, operator: OperatorProcess, namespace: str) -> Engine:
    """An engine that is not applied yet, with the operator running."""
    assert operator.process.poll() is None
    return Engine(control_plane.access, namespace)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    """A cluster in memory that holds the engine `tiny`."""
    made = World()
    async with made.poller:
        made.kube.put_engine(raw_spec())
        yield made
