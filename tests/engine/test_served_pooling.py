"""A pooling model (A21): the same API keys, status, counts and drain as a model that generates."""

import asyncio
from collections.abc import Iterator

import pytest

from alise_engine.serve import tiny_model
from tests.engine.api_fakes import admission_server, admit, eventually
from tests.engine.served import API_KEY, Observer, ServedEngine, serving

pytestmark = pytest.mark.engine

BODY = {"model": "tiny", "input": ["one", "two"]}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedEngine]:
    folder = tmp_path_factory.mktemp("pooling")
    tiny_model.write_model(folder / "tiny")
    (folder / "keys").mkdir()
    (folder / "keys" / "team-a").write_text(API_KEY)
    flags = ["--served-model-name", "tiny", "--runner", "pooling", "--convert", "embed", "--max-model-len", "2048"]
    with serving(folder / "tiny", *flags, ALISE_AUTH_DIR=str(folder / "keys")) as engine:
        yield engine


async def test_embeddings_need_an_api_key(engine: ServedEngine) -> None:
    async with engine.http(api_key=None) as http:
        assert (await http.post("/v1/embeddings", json=BODY)).status_code == 401


async def test_embeddings_are_counted_and_carry_the_pods_stamp(engine: ServedEngine) -> None:
    async with admission_server(engine.admission_socket) as sidecar, engine.channel() as channel:
        sidecar.answer = admit(3 << 32, b"hint")
        observer = Observer(channel)
        following = asyncio.create_task(observer.follow())
        await eventually(lambda: bool(observer.session_id), "the snapshot")
        async with engine.http() as http:
            response = await http.post("/v1/embeddings", json=BODY)
        assert (response.status_code, len(response.json()["data"])) == (200, 2)
        [asked] = sidecar.requests
        assert (asked.tenant, asked.n) == ("team-a", 2)
        await eventually(lambda: asked.job_id in observer.finished, "the job's ending")
        following.cancel()


async def test_the_status_says_that_nothing_is_open(engine: ServedEngine) -> None:
    # It may still count a request that has just ended.
    async with asyncio.timeout(30):
        while await open_and_running(engine) != (0, 0):  # noqa: ASYNC110 it is another process that tells
            await asyncio.sleep(0.1)


async def open_and_running(engine: ServedEngine) -> tuple[int, int]:
    report = await engine.status()
    return report["open_requests"], report["requests_running"]


def test_a_drain_ends_when_nothing_is_open(engine: ServedEngine) -> None:
    done = engine.command("drain", "--accept-seconds", "0", "--timeout-seconds", "50")
    assert (done.returncode, done.stdout[:7]) == (0, "drained")
