"""The poll of a pod's status over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from alise_contract.names import STATUS_PATH
from alise_operator import poller as polling
from alise_operator.poller import Poller
from tests.operator.builders import make_pod, report_text


@asynccontextmanager
async def pod_answering(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[int]:
    """A pod's HTTP server; gives its port."""
    app = web.Application()
    app.add_routes([web.get(STATUS_PATH, answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def test_a_ready_pod_is_asked_once_while_its_answer_is_fresh() -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(text=report_text(sidecar={"connected": True}))

    async with pod_answering(answer) as port, Poller(port) as poller:
        pod = make_pod(address="127.0.0.1", report=None)
        (first,), (second,) = await poller.poll([pod]), await poller.poll([pod])
    assert first.report is not None
    assert first.report.sidecar_connected
    assert first == second
    assert asked == [STATUS_PATH]


async def test_polls_without_a_plan_are_counted_until_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = iter([False, False, True])

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=report_text(sidecar={"connected": True, "plan_fresh": next(fresh)}))

    monkeypatch.setattr(polling, "POLL_FRESH_SECONDS", -1.0)
    counted = []
    async with pod_answering(answer) as port, Poller(port) as poller:
        for _ in range(3):
            (pod,) = await poller.poll([make_pod(address="127.0.0.1", report=None)])
            counted.append(pod.unranked_polls)
    assert counted == [1, 2, 0]


@pytest.mark.parametrize(
    "changes", [{"ready": False}, {"terminating": True}, {"address": ""}], ids=["not ready", "on its way out", "without an address"]
)
async def test_other_pods_are_not_asked(changes: dict[str, Any]) -> None:
    async with Poller(1) as poller:
        (pod,) = await poller.poll([make_pod(**({"address": "127.0.0.1", "report": None} | changes))])
    assert (pod.report, pod.report_error) == (None, None)


async def test_a_pod_that_does_not_listen_is_named_unreachable() -> None:
    async def answer(_: web.Request) -> web.Response:
        raise AssertionError("no process listens any more")

    async with pod_answering(answer) as port:
        pass
    async with Poller(port) as poller:
        (pod,) = await poller.poll([make_pod(address="127.0.0.1", report=None)])
    assert (pod.report, pod.report_error) == (None, None), "one failed poll says nothing"


async def failing_twice(port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The report about a pod after two polls of that port."""
    monkeypatch.setattr(polling, "POLL_FRESH_SECONDS", -1.0)
    async with Poller(port) as poller:
        for _ in range(2):
            (pod,) = await poller.poll([make_pod(address="127.0.0.1", report=None)])
    assert pod.report is None
    return pod.report_error or ""


async def test_a_connection_that_breaks_names_the_mesh_as_a_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with pod_answering(answer) as port:
        said = await failing_twice(port, monkeypatch)
    assert "the connection to /alise/v1/status broke" in said
    assert f"if a service mesh requires mTLS, exclude port {port} from it" in said
    assert "traffic.sidecar.istio.io/excludeInboundPorts" in said


async def test_a_pod_that_accepts_no_connection_has_another_message_than_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    over = asyncio.Event()
    async with pod_answering(answer) as port:
        monkeypatch.setattr(polling, "POLL_SECONDS", 0.05)
        slow = await failing_twice(port, monkeypatch)
        over.set()
    refused = await failing_twice(port, monkeypatch)
    assert slow.startswith("no answer from /alise/v1/status within 0 s in two polls in a row; do the namespace's NetworkPolicies allow")
    assert "within" not in refused
    assert "accepts no connection from the operator" in refused


async def test_a_hundred_slow_pods_do_not_use_up_each_others_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, all_asked = [], asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        waiting.append(1)
        if len(waiting) == 100:
            all_asked.set()
        await all_asked.wait()
        return web.Response(text=report_text())

    # Only when all are asked at once does any of them answer; with time enough for a machine under load.
    monkeypatch.setattr(polling, "_POLLS_AT_A_TIME", 100)
    monkeypatch.setattr(polling, "POLL_SECONDS", 60.0)
    async with pod_answering(answer) as port, Poller(port) as poller:
        pods = await poller.poll([make_pod(uid=f"uid-{n}", address="127.0.0.1", report=None) for n in range(100)])
    assert all(pod.report is not None for pod in pods)


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (404, b"not found", "answered 404; use an alise engine image in spec.engine.image"),
        (503, b"busy", "answered 503; see the engine's log"),
        (200, b"<html>", "cannot be read"),
        (200, b"\xff\xfe{}", "cannot be read"),
    ],
    ids=["another server", "a server that fails", "no JSON", "no text"],
)
async def test_a_pod_that_answers_something_else_says_so(status: int, text: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=text, headers={"Content-Type": "application/json; charset=utf-8"})

    async with pod_answering(answer) as port:
        assert said in await failing_twice(port, monkeypatch)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_middleware_that_refuses_the_poll_is_named_and_not_the_image(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status)

    async with pod_answering(answer) as port:
        said = await failing_twice(port, monkeypatch)
    assert f"GET /alise/v1/status on port 8000 was refused with {status}, so the operator cannot see the pod's scheduler and memory" in said
    assert "requests are still served. Allow this path without credentials: a middleware (--middleware in spec.engine.args)" in said
