"""`alise-engine serve` with a list of LoRA adapters: what clients can ask for, and that a changed list takes effect without a restart."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Completion

from alise_contract.adapters import FILE, Adapter, dump
from alise_contract.names import ADAPTERS_DIR_ENV
from alise_engine.serve import tiny_model
from tests.engine.api_fakes import FakeAdmission, admission_server
from tests.engine.served import API_KEY, ServedEngine, serving
from tests.engine.tiny_adapter import write_adapter

pytestmark = pytest.mark.engine

PROMPT = "Tell me a story about ships"
TOKENS = 60
# The context of the engine. A long answer lasts for about LONG_SECONDS, in which a list is read, an adapter loaded, and a status polled.
MAX_MODEL_LEN, LONG_SECONDS = 16_384, 10.0
MAX_RANK = 8
WITHIN_SECONDS = 30.0


class Listed:
    """The mounted list, and the folders of some adapters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "list"
        self.folder.mkdir()
        self.support = Adapter("support", str(write_adapter(folder / "support-1", seed=1)))
        self.newer_support = Adapter("support", str(write_adapter(folder / "support-2", seed=2)))
        self.legal = Adapter("legal", str(write_adapter(folder / "legal", seed=3)))
        self.too_large = Adapter("large", str(write_adapter(folder / "large", seed=4, rank=2 * MAX_RANK)))
        self.write(self.support)

    def write(self, *adapters: Adapter) -> None:
        (self.folder / "next").write_text(dump(adapters))
        os.replace(self.folder / "next", self.folder / FILE)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Listed:
    return Listed(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, listed: Listed) -> Iterator[ServedEngine]:
    model = tiny_model.write_model(tmp_path_factory.mktemp("models") / "tiny")
    flags = ["--served-model-name", "tiny", "--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs", "2", "--dtype", "float32"]
    flags += ["--enable-lora", "--max-loras", "2", "--max-lora-rank", str(MAX_RANK), "--max-cpu-loras", "32"]
    flags += ["--api-key", API_KEY, "--alise-host-memory", "64Mi", "--alise-kv-codec", "none"]
    with serving(model, *flags, **{ADAPTERS_DIR_ENV: str(listed.folder)}) as engine:
        yield engine


@pytest.fixture
async def client(engine: ServedEngine, listed: Listed) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of an engine that serves `support`, whatever the test before it left."""
    listed.write(listed.support)
    async with engine.openai() as client:
        await served(engine, {"support": listed.support.source})
        yield client


async def served(engine: ServedEngine, wanted: dict[str, str]) -> None:
    """Waits until the pod's status says that exactly these adapters are loaded: name -> version."""

    async def is_so() -> bool:
        rows = (await engine.status())["adapters"]
        return {row["name"]: row["source"] for row in rows} == wanted and all(row["state"] == "ADAPTER_STATE_LOADED" for row in rows)

    await until(is_so)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Asks until it is so. The list is looked at every 2 s."""
    deadline_seconds = time.monotonic() + WITHIN_SECONDS
    while not await condition():
        assert time.monotonic() < deadline_seconds, f"did not happen within {WITHIN_SECONDS} s"
        await asyncio.sleep(0.1)


async def answer(client: openai.AsyncOpenAI, model: str) -> str:
    greedy: dict[str, Any] = {"max_tokens": TOKENS, "temperature": 0.0, "extra_body": {"ignore_eos": True}}
    completion = await client.completions.create(model=model, prompt=PROMPT, **greedy)
    assert completion.model == model
    return str(completion.choices[0].text)


async def test_an_adapter_is_a_model_of_its_own_from_the_start(engine: ServedEngine, client: openai.AsyncOpenAI) -> None:
    models = {model.id: model for model in (await client.models.list()).data}
    assert models.keys() == {"tiny", "support"}
    assert models["support"].model_extra is not None
    assert models["support"].model_extra["parent"] == "tiny"
    assert await answer(client, "support") != await answer(client, "tiny")


async def test_the_scheduler_is_asked_under_the_name_of_the_adapter(engine: ServedEngine, client: openai.AsyncOpenAI) -> None:
    async with admission_server(engine.admission_socket) as sidecar:

        async def names() -> set[str]:
            await client.completions.create(model="support", prompt="a", max_tokens=1)
            return {request.model for request in sidecar.requests}

        await asked(sidecar, client)
        assert await names() == {"support"}


async def asked(sidecar: FakeAdmission, client: openai.AsyncOpenAI) -> None:
    """Waits until the sidecar is asked: the breaker may be open after tests without one."""

    async def once() -> bool:
        await client.completions.create(model="support", prompt="a", max_tokens=1)
        return bool(sidecar.requests)

    await until(once)


async def test_adapters_come_and_go_without_a_restart(engine: ServedEngine, client: openai.AsyncOpenAI, listed: Listed) -> None:
    boot = (await engine.status())["boot_id"]
    support = await answer(client, "support")
    with pytest.raises(openai.NotFoundError, match="The model `legal` does not exist"):
        await answer(client, "legal")
    listed.write(listed.support, listed.legal)
    await served(engine, {"support": listed.support.source, "legal": listed.legal.source})
    assert len({await answer(client, name) for name in ("tiny", "support", "legal")}) == 3
    assert await answer(client, "support") == support
    listed.write(listed.legal)
    await served(engine, {"legal": listed.legal.source})
    with pytest.raises(openai.NotFoundError, match="The model `support` does not exist"):
        await answer(client, "support")
    assert (await engine.status())["boot_id"] == boot


async def test_an_answer_ends_with_the_version_with_which_it_began(
    engine: ServedEngine, client: openai.AsyncOpenAI, listed: Listed
) -> None:
    before = time.monotonic()
    old = await answer(client, "support")
    tokens = max(1900, min(MAX_MODEL_LEN - 100, int(TOKENS * LONG_SECONDS / (time.monotonic() - before))))

    async def long() -> openai.AsyncStream[Completion]:
        # Streamed, because each read has a deadline. It must run until the newer version is served.
        return await client.completions.create(
            model="support", prompt=PROMPT, max_tokens=tokens, temperature=0.0, stream=True, extra_body={"ignore_eos": True}
        )

    stream = await long()
    began = (await anext(stream)).choices[0].text
    listed.write(listed.newer_support)
    await served(engine, {"support": listed.newer_support.source})
    new = await answer(client, "support")

    async def only_the_stream_runs() -> bool:
        return bool((await engine.status())["requests_running"] == 1)

    # The status of a moment ago may still count the request that has just ended.
    await until(only_the_stream_runs)
    whole = began + "".join([chunk.choices[0].text async for chunk in stream if chunk.choices])
    assert whole.startswith(old)
    assert new != old
    # Back to the old files: another load of the same folder, and the same answer to the last token.
    listed.write(listed.support)
    await served(engine, {"support": listed.support.source})
    assert "".join([chunk.choices[0].text async for chunk in await long() if chunk.choices]) == whole


async def test_an_adapter_that_cannot_be_loaded_is_reported_and_costs_nothing_else(
    engine: ServedEngine, client: openai.AsyncOpenAI, listed: Listed
) -> None:
    listed.write(listed.support, listed.too_large, Adapter("absent", "/nowhere"))

    async def failed() -> bool:
        states = [row["state"] for row in (await engine.status())["adapters"]]
        return states.count("ADAPTER_STATE_FAILED") == 2

    await until(failed)
    messages = {row["name"]: row["message"] for row in (await engine.status())["adapters"]}
    assert messages["large"] == "its rank is 16 and spec.model.lora.maxRank is 8; raise maxRank, which restarts the pods"
    assert messages["absent"] == "the folder /nowhere does not exist in the engine's container"
    assert await answer(client, "support")


async def test_weights_that_do_not_fit_the_model_are_refused_in_vllms_words(
    engine: ServedEngine, client: openai.AsyncOpenAI, listed: Listed, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "broken", seed=5)
    (folder / "adapter_model.safetensors").write_bytes(b"no weights")
    listed.write(listed.support, Adapter("broken", str(folder)))

    async def failed() -> bool:
        return any(row["state"] == "ADAPTER_STATE_FAILED" for row in (await engine.status())["adapters"])

    await until(failed)
    (row,) = [row for row in (await engine.status())["adapters"] if row["name"] == "broken"]
    assert "safetensor" in row["message"].lower() or "header" in row["message"].lower()
    assert await answer(client, "support")


@pytest.mark.parametrize("route", ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"])
async def test_clients_can_neither_load_nor_unload(engine: ServedEngine, client: openai.AsyncOpenAI, listed: Listed, route: str) -> None:
    async with engine.http() as http:
        body = {"lora_name": "support", "lora_path": listed.legal.uri}
        answered: httpx.Response = await http.post(route, json=body)
    assert answered.status_code == 404
    assert {model.id for model in (await client.models.list()).data} == {"tiny", "support"}
