"""A real Prometheus scrapes a real engine and its scheduler: every query of the dashboard has an answer, and alerts fire when they should.

The engine has little KV memory and a short queue, and then loses its scheduler.
"""

import asyncio
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from alise_engine.serve import tiny_model
from tests.engine.served import ServedEngine, end, held_port, serving
from tests.monitoring.prometheus import Prometheus, running
from tests.monitoring.sources import metrics_of, queries

pytestmark = pytest.mark.engine

CLASSES = json.dumps([{"name": "batch", "weight": 0.25, "sloTtftMs": 0}])
# More requests wait than may, for which there are neither slots nor KV memory enough.
REQUESTS, SLOTS, MAX_PENDING = 64, 6, 40
MAX_MODEL_LEN, KV_BLOCKS = 512, 17
# A flood takes 5 to 30 s, and an alert looks at the last 20 s.
FLOOD_SECONDS = 180.0
TARGET = {"namespace": "models", "alise_engine": "tiny", "pod": "tiny-1"}
# Answers end by themselves soon after this number of tokens: every other token of a random model is one of these.
LENGTH = 60
ENDS = {"min_tokens": LENGTH, "stop_token_ids": list(range(0, 256, 2))}


@dataclass
class Scheduler:
    """A real `alise-scheduler supervise` beside the engine."""

    engine: ServedEngine
    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        environ = os.environ | {
            "ALISE_SOCKET_DIR": str(self.engine.socket_dir),
            "ALISE_HTTP_HOST": "127.0.0.1",
            "ALISE_HTTP_PORT": str(self.port),
            "ALISE_HISTORY_DIR": str(self.folder),
            "ALISE_PREDICTOR": "light",
            "ALISE_CLASSES": CLASSES,
        }
        with (self.folder / "scheduler.log").open("ab") as log:
            argv = [sys.executable, "-m", "alise_scheduler", "supervise"]
            self.process = subprocess.Popen(argv, env=environ, stdout=log, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """Ends the supervisor, and then the process that it would have started again."""
        if self.process is None:
            return
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        end(self.process)
        self.process = None
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)


@dataclass(frozen=True)
class World:
    engine: ServedEngine
    scheduler: Scheduler
    prometheus: Prometheus


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("monitoring")
    tiny_model.write_model(folder / "tiny")
    flags = ["--served-model-name", "tiny", "--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs", str(SLOTS), "--enforce-eager"]
    flags += ["--block-size", "32", "--num-gpu-blocks-override", str(KV_BLOCKS), "--alise-host-memory", "64Mi"]
    settings = {"ALISE_CLASSES": CLASSES, "ALISE_TRUST_HEADERS": "true", "ALISE_MAX_PENDING": str(MAX_PENDING)}
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(serving(folder / "tiny", *flags, **settings))
        scheduler = Scheduler(engine, folder, stack.enter_context(held_port()))
        stack.callback(scheduler.kill)
        scheduler.start()
        targets = {f"127.0.0.1:{port}": TARGET for port in (engine.port, scheduler.port)}
        prometheus = stack.enter_context(running(folder, targets))
        prometheus.eventually("both are scraped", lambda: not prometheus.targets_down())
        prometheus.eventually("the scheduler sends plans", lambda: prometheus.value("alise_engine_plan_fresh") == 1)
        yield World(engine, scheduler, prometheus)


async def ask(client: openai.AsyncOpenAI, number: int) -> None:
    """Sends a request of one of the two classes; a refusal is an answer like any other."""
    headers = {"x-llm-d-inference-objective": "batch"} if number % 2 else {}
    with contextlib.suppress(openai.RateLimitError):
        await client.completions.create(
            model="tiny", prompt=f"story {number} " * 20, max_tokens=300, extra_headers=headers, extra_body=ENDS
        )


async def flood(world: World, requests: int) -> None:
    async with world.engine.openai() as client:
        await asyncio.gather(*(ask(client.with_options(timeout=120), number) for number in range(requests)))


def of_pods() -> dict[str, str]:
    """The dashboard's queries that ask nothing of the operator."""
    return {name: query for name, query in queries().items() if not any("_operator_" in metric for metric in metrics_of(query))}


def unanswered(prometheus: Prometheus) -> list[str]:
    """The queries that have no answer, or one that is no number."""
    return [
        name for name, query in of_pods().items() if not any(math.isfinite(float(series["value"][1])) for series in prometheus.query(query))
    ]


async def flooded(world: World, until: Callable[[], bool]) -> None:
    """Floods the engine again and again until it is so, however fast the machine answers."""
    deadline = time.monotonic() + FLOOD_SECONDS
    while not until():
        assert time.monotonic() < deadline, f"not within {FLOOD_SECONDS:.0f} s; firing: {sorted(world.prometheus.firing())}"
        await flood(world, REQUESTS)


async def test_every_query_of_the_dashboard_has_an_answer_and_a_short_queue_and_kv_cache_raise_their_alerts(world: World) -> None:
    prometheus, fired = world.prometheus, dict[str, Any]()
    load = asyncio.create_task(flooded(world, lambda: {"AliseKVCacheShort", "AliseRequestsRejected"} <= fired.keys()))
    while not load.done():
        fired |= await asyncio.to_thread(prometheus.firing)
        await asyncio.wait([load], timeout=0.5)
    await load
    await asyncio.to_thread(prometheus.eventually, "every query has an answer", lambda: not unanswered(prometheus))
    assert fired["AliseKVCacheShort"]["labels"].items() >= {"namespace": "models", "alise_engine": "tiny", "severity": "info"}.items()
    assert fired["AliseRequestsRejected"]["labels"]["class"] in ("batch", "default")
    assert "% of the requests get 429" in fired["AliseRequestsRejected"]["annotations"]["description"]
    await asyncio.to_thread(prometheus.eventually, "every rule was evaluated without an error", lambda: not prometheus.rule_errors())


def answer(prometheus: Prometheus, query: str) -> list[dict[str, Any]]:
    """Waits for one: a scrape that takes over a second, as on a busy machine, leaves a gap."""
    return prometheus.eventually(query, lambda: prometheus.query(query))


async def test_both_classes_have_waits_and_none_of_the_two_hides_the_other(world: World) -> None:
    # No request is refused, and each class has more than the 16 that it publishes at a time.
    await flood(world, MAX_PENDING)
    for metric in ("wait_seconds", "ttft_seconds", "slowdown"):
        both = f'count(count by (class) (alise_scheduler_{metric}_count{{class=~"batch|default"}} > 0)) == 2'
        assert await asyncio.to_thread(answer, world.prometheus, both), metric


def test_build_info_has_the_same_labels_in_every_process(world: World) -> None:
    query = "count by (component, version, contract_version) (alise_build_info)"

    def of_both() -> list[dict[str, Any]] | None:
        found = world.prometheus.query(query)
        return found if {one["metric"]["component"] for one in found} == {"engine", "scheduler"} else None

    series = world.prometheus.eventually("both processes say their build", of_both)
    assert len({(one["metric"]["version"], one["metric"]["contract_version"]) for one in series}) == 1
    assert answer(world.prometheus, "alise_engine_model_info")[0]["metric"]["model"] == "tiny"
    (slots,) = answer(world.prometheus, "alise_engine_slots")
    assert float(slots["value"][1]) == SLOTS


async def test_a_dead_scheduler_raises_its_alerts_until_it_is_back(world: World) -> None:
    prometheus = world.prometheus
    # A plan that came late, as on a busy machine, raises the alert for a moment.
    await asyncio.to_thread(prometheus.eventually, "the scheduler is there", lambda: "AliseSchedulerDown" not in prometheus.firing())
    world.scheduler.kill()
    await flood(world, 4)
    fired = await asyncio.to_thread(
        prometheus.eventually,
        "both alerts fire",
        lambda: found if {"AliseSchedulerDown", "AliseFailingOpen"} <= (found := prometheus.firing()).keys() else None,
    )
    assert fired["AliseSchedulerDown"]["labels"]["pod"] == "tiny-1"
    assert fired["AliseSchedulerDown"]["annotations"]["runbook"] == "docs/runbooks/AliseSchedulerDown.md"
    world.scheduler.start()
    await asyncio.to_thread(prometheus.eventually, "the alert ends", lambda: "AliseSchedulerDown" not in prometheus.firing())
