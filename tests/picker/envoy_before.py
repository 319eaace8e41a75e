"""Envoy before replicas of this machine, with and without a picker.

`test_envoy_picker.py`, `test_holding.py` and `tests/bench/picker.py` start it.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.gateway import picker as envoys
from tests.cluster.gateway.envoy import Envoy
from tests.cluster.gateway.resources import UPSTREAM_HEADER, Objects, Resources, envoy_resources
from tests.gateway.builders import make_endpoints, make_ingress, make_service
from tests.picker.paced_replica import LENGTH_HEADER
from tests.picker.replica_processes import ReplicaProcess

HOST = {"Host": "tiny.test"}
SECONDS = 60.0


def routed(
    replicas: Sequence[ReplicaProcess], picker_port: int | None, body_mode: str = envoys.BUFFERED, own_balancing: str = "LEAST_REQUEST"
) -> Resources:
    """Resources that send tiny.test to these replicas, by the picker on this port or by Envoy's own balancing."""
    services, endpoints = [make_service()], [make_endpoints([("127.0.0.1", one.port) for one in replicas])]
    if picker_port is not None:
        services.append(make_service("tiny-picker", 9002, "grpc"))
        endpoints.append(make_endpoints([("127.0.0.1", picker_port)], name="tiny-picker", port_name="grpc"))
    return envoy_resources(Objects([make_ingress()], [], [], services, endpoints), body_mode, own_balancing)


def envoy_before(folder: Path, resources: Resources, picker_seconds: float = envoys.MESSAGE_SECONDS) -> Envoy:
    """An Envoy that is not started yet. After `picker_seconds` it balances by itself."""
    (folder / "envoy").mkdir()
    envoy = Envoy(folder / "envoy", picker_seconds=picker_seconds)
    envoy.update(resources)
    return envoy


@dataclass(frozen=True)
class Answer:
    """What a client saw of one request."""

    status: int
    upstream: str
    ttft_seconds: float
    seconds: float
    chunks: int
    text: str
    headers: dict[str, str]


def chat(prompt: str = "hi", max_tokens: int = 4, **more: Any) -> dict[str, Any]:
    """The body of a chat."""
    return {"model": "paced", "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, "stream": True, **more}


async def ask(client: aiohttp.ClientSession, url: str, body: dict[str, Any], answer_tokens: int | None = None) -> Answer:
    """Sends a chat and reads its answer to the end."""
    began, first, chunks, text = time.monotonic(), 0.0, 0, b""
    headers = HOST | ({LENGTH_HEADER: str(answer_tokens)} if answer_tokens else {})
    async with asyncio.timeout(SECONDS), client.post(f"{url}/v1/chat/completions", json=body, headers=headers) as answer:
        async for chunk in answer.content:
            first = first or time.monotonic()
            chunks += chunk.startswith(b"data: {")
            text += chunk
        found = {name.lower(): value for name, value in answer.headers.items()}
        ended = time.monotonic()
        return Answer(answer.status, found.get(UPSTREAM_HEADER, ""), (first or ended) - began, ended - began, chunks, text.decode(), found)
