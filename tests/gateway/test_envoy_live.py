"""The real Envoy, configured by `envoy_resources` through files, in front of small HTTP servers on this machine."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.cluster.gateway.envoy import Envoy
from tests.cluster.gateway.resources import UPSTREAM_HEADER, envoy_resources
from tests.gateway.builders import make_endpoints, make_ingress, make_objects

pytestmark = pytest.mark.process

DEADLINE_SECONDS = 20.0
HOST = {"Host": "tiny.test"}


class Upstream:
    """A server that answers with its name, and streams ticks until it has to finish."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.posts = 0
        self.finish = asyncio.Event()
        self.disconnected = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> "Upstream":
        """Listen on a free port."""
        app = web.Application()
        app.router.add_get("/", self._hello)
        app.router.add_get("/stream", self._stream)
        app.router.add_post("/broken", self._broken)
        self._runner = web.AppRunner(app, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Close every connection."""
        assert self._runner is not None
        await self._runner.cleanup()

    async def _hello(self, request: web.Request) -> web.Response:
        return web.Response(text=self.name)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while not self.finish.is_set():
                await response.write(b"tick\n")
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.disconnected.set()
            raise
        await response.write(b"end\n")
        return response

    async def _broken(self, request: web.Request) -> web.Response:
        self.posts += 1
        assert request.transport is not None
        request.transport.close()
        return web.Response()


def routed(*upstreams: Upstream) -> Any:
    """Resources that send tiny.test to these."""
    addresses = [("127.0.0.1", upstream.port) for upstream in upstreams]
    return envoy_resources(make_objects(ingresses=[make_ingress(host="tiny.test")], endpoints=[make_endpoints(addresses)]))


@pytest.fixture
async def upstreams() -> AsyncIterator[list[Upstream]]:
    started = [await Upstream(name).start() for name in ("one", "two")]
    yield started
    for upstream in started:
        upstream.finish.set()
        await upstream.stop()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS)) as session:
        yield session


async def eventually(condition: Callable[[], Any]) -> None:
    """Await the coroutine function until it says yes. Raises TimeoutError past the deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


async def answers(client: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    """Status and text of a plain request for tiny.test."""
    async with client.get(url, headers=HOST) as response:
        return response.status, await response.text()


async def test_a_request_for_a_routed_host_reaches_every_upstream(
    tmp_path: Path, upstreams: list[Upstream], client: aiohttp.ClientSession
) -> None:
    with Envoy(tmp_path) as envoy:
        envoy.update(routed(*upstreams))
        seen: set[str] = set()

        async def both_seen() -> bool:
            status, text = await answers(client, envoy.url)
            seen.add(text if status == 200 else "")
            return {"one", "two"} <= seen

        await eventually(both_seen)


async def test_an_answer_names_the_upstream_it_came_from(tmp_path: Path, upstreams: list[Upstream], client: aiohttp.ClientSession) -> None:
    envoy = Envoy(tmp_path)
    envoy.update(routed(upstreams[0]))
    with envoy:
        async with client.get(envoy.url, headers=HOST) as response:
            assert response.headers[UPSTREAM_HEADER] == f"127.0.0.1:{upstreams[0].port}"


async def test_an_unknown_host_is_404_from_the_gateway(tmp_path: Path, upstreams: list[Upstream], client: aiohttp.ClientSession) -> None:
    envoy = Envoy(tmp_path)
    envoy.update(routed(*upstreams))
    with envoy:
        async with client.get(envoy.url, headers={"Host": "other.test"}) as response:
            assert response.status == 404


async def test_a_host_with_a_port_is_routed_as_without(tmp_path: Path, upstreams: list[Upstream], client: aiohttp.ClientSession) -> None:
    envoy = Envoy(tmp_path)
    envoy.update(routed(upstreams[0]))
    with envoy:
        async with client.get(envoy.url, headers={"Host": f"tiny.test:{envoy.port}"}) as response:
            assert (response.status, await response.text()) == (200, "one")


async def test_a_service_without_ready_endpoints_is_503(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    envoy = Envoy(tmp_path)
    envoy.update(routed())
    with envoy:
        assert (await answers(client, envoy.url))[0] == 503


async def test_a_stream_arrives_while_it_is_made(tmp_path: Path, upstreams: list[Upstream], client: aiohttp.ClientSession) -> None:
    envoy = Envoy(tmp_path)
    envoy.update(routed(upstreams[0]))
    with envoy:
        async with client.get(f"{envoy.url}/stream", headers=HOST) as response:
            assert await response.content.readline() == b"tick\n"  # the server goes on until the test ends it
            upstreams[0].finish.set()
            assert (await response.content.read()).endswith(b"end\n")


async def test_a_closed_stream_is_closed_at_the_upstream(tmp_path: Path, upstreams: list[Upstream], client: aiohttp.ClientSession) -> None:
    envoy = Envoy(tmp_path)
    envoy.update(routed(upstreams[0]))
    with envoy:
        async with client.get(f"{envoy.url}/stream", headers=HOST) as response:
            await response.content.readline()
        await asyncio.wait_for(upstreams[0].disconnected.wait(), DEADLINE_SECONDS)
    assert upstreams[0].disconnected.is_set()


async def test_a_stream_goes_on_when_its_endpoint_leaves(tmp_path: Path, upstreams: list[Upstream], client: aiohttp.ClientSession) -> None:
    one, two = upstreams
    envoy = Envoy(tmp_path)
    envoy.update(routed(one))
    with envoy:
        async with client.get(f"{envoy.url}/stream", headers=HOST) as response:
            await response.content.readline()
            envoy.update(routed(two))

            async def new_requests_go_to_two() -> bool:
                return await answers(client, envoy.url) == (200, "two")

            await eventually(new_requests_go_to_two)
            for _ in range(50):
                assert await response.content.readline() == b"tick\n"
            one.finish.set()
            assert (await response.content.read()).endswith(b"end\n")


async def test_a_stream_goes_on_when_the_whole_route_is_replaced(
    tmp_path: Path, upstreams: list[Upstream], client: aiohttp.ClientSession
) -> None:
    envoy = Envoy(tmp_path)
    envoy.update(routed(upstreams[0]))
    with envoy:
        async with client.get(f"{envoy.url}/stream", headers=HOST) as response:
            await response.content.readline()
            ingresses = [make_ingress(host="tiny.test"), make_ingress(name="more", host="more.test")]
            envoy.update(envoy_resources(make_objects(ingresses, [make_endpoints([("127.0.0.1", upstreams[0].port)])])))

            async def more_is_routed() -> bool:
                async with client.get(envoy.url, headers={"Host": "more.test"}) as other:
                    return other.status == 200

            await eventually(more_is_routed)
            upstreams[0].finish.set()
            assert (await response.content.read()).endswith(b"end\n")


async def test_a_request_that_reached_an_upstream_is_not_sent_again(
    tmp_path: Path, upstreams: list[Upstream], client: aiohttp.ClientSession
) -> None:
    envoy = Envoy(tmp_path)
    envoy.update(routed(*upstreams))
    with envoy:
        async with client.post(f"{envoy.url}/broken", headers=HOST, data=json.dumps({})) as response:
            assert response.status == 503
    assert sum(upstream.posts for upstream in upstreams) == 1


async def test_an_upstream_that_refuses_connections_is_passed_over(
    tmp_path: Path, upstreams: list[Upstream], client: aiohttp.ClientSession
) -> None:
    gone, alive = upstreams
    await gone.stop()
    envoy = Envoy(tmp_path)
    envoy.update(routed(gone, alive))
    with envoy:
        found = [await answers(client, envoy.url) for _ in range(10)]
    assert found == [(200, "two")] * 10
