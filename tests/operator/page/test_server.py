"""The operator's page over HTTP on loopback: who may ask, what it answers, and what it says when something is missing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from alise_contract import page
from alise_operator.page import server as serving
from alise_operator.page.read import MOST_LISTED, Reader
from alise_operator.pods import EVENTS
from alise_operator.reconcile import ENGINES
from tests.operator.fake_kube import FakeKube
from tests.operator.page.installation import HOSTILE, NAME, NAMESPACE, PODS, engine, event, installation, put_pods, reader
from tests.operator.page.installation import pod as a_pod

PATH = f"/engines/{NAMESPACE}/{NAME}"


@asynccontextmanager
async def served(found: Reader, read_seconds: float = 5.0) -> AsyncIterator[Callable[..., Any]]:
    """The page; gives what asks it: method, path and headers to status, headers and text."""
    runner = web.AppRunner(serving.application(found, read_seconds))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]

    async def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, Any, str]:
        async with aiohttp.ClientSession() as session:
            async with session.request(method, f"http://127.0.0.1:{port}{path}", headers=headers) as answer:
                return answer.status, answer.headers, await answer.text()

    try:
        yield ask
    finally:
        await runner.cleanup()


async def test_the_list_shows_every_resource_and_links_to_it() -> None:
    async with served(reader()) as ask:
        status, _, text = await ask("/")
    assert status == 200
    for name in ("chat", "code", "summaries", "nightly", "draft", "search"):
        assert f'/{name}">{name}</a>' in text


async def test_a_namespace_can_be_chosen() -> None:
    async with served(reader()) as ask:
        _, _, text = await ask("/?namespace=batch")
    assert "/engines/batch/nightly" in text
    assert "/engines/team-chat/chat" not in text


async def test_one_resource_has_its_pods_its_conditions_and_its_events() -> None:
    async with served(reader()) as ask:
        status, _, text = await ask(PATH)
    assert status == 200
    for part in (*PODS, "RollingOut", "ReplicasReset", "(2 times)", "94 s", "Its figures are missing: no answer from /alise/v1/status"):
        assert part in text


async def test_requests_are_left_to_the_plugin() -> None:
    async with served(reader()) as ask:
        _, _, text = await ask(PATH)
    assert "Requests are read with your own rights" in text
    assert page.filled(text, page.REQUESTS_PLACE, "") != text
    assert page.filled(text, page.ACCOUNT_PLACE, "x") != text


@pytest.mark.parametrize("path", ["/", PATH, "/page.css", "/icon.svg", "/nothing"])
async def test_every_answer_forbids_scripts_frames_and_other_hosts(path: str) -> None:
    async with served(reader()) as ask:
        _, headers, _ = await ask(path)
    assert {name: headers[name] for name in page.HEADERS} == dict(page.HEADERS)
    assert "script-src" not in headers["Content-Security-Policy"]
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def test_it_is_read_only(method: str) -> None:
    async with served(reader()) as ask:
        status, _, _ = await ask(PATH, method)
    assert status == 405


@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1.evil.example.com", "10.0.0.7:9502", "localhost.evil.example.com:9502", ""])
async def test_a_website_whose_name_leads_here_gets_nothing(host: str) -> None:
    async with served(reader()) as ask:
        status, _, text = await ask("/", Host=host)
    assert (status, NAME in text) == (421, False)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8001", "127.0.0.1:9502", "[::1]:80"])
async def test_names_of_this_machine_are_answered(host: str) -> None:
    async with served(reader()) as ask:
        status, _, _ = await ask("/", Host=host)
    assert status == 200


@pytest.mark.parametrize(
    "path", ["/engines/team-chat/nothing", "/engines/team-chat/..%2Fx", "/engines/A/b", "/nothing", "/engines/team-chat", "/?namespace=.."]
)
async def test_what_does_not_exist_is_not_found(path: str) -> None:
    async with served(reader()) as ask:
        status, _, text = await ask(path)
    assert (status, "There is no such" in text) == (404, True)


async def test_an_operator_of_one_namespace_has_no_page_for_another() -> None:
    found = Reader(installation(), reader()._poller, reader()._loads, namespace="team-code")
    async with served(found) as ask:
        status, _, _ = await ask(PATH)
    assert status == 404


async def test_a_cluster_that_may_not_be_read_is_named() -> None:
    kube = installation()
    kube.forbidden.add(ENGINES.plural)
    async with served(reader(kube)) as ask:
        status, _, text = await ask("/")
    assert (status, "The cluster could not be read" in text) == (502, True)


@pytest.mark.parametrize(
    ("plural", "sentence"), [("events", "The events could not be read"), ("deployments", "The pods could not be read")]
)
async def test_what_cannot_be_read_is_named_and_the_rest_is_shown(plural: str, sentence: str) -> None:
    kube = installation()
    kube.forbidden.add(plural)
    async with served(reader(kube)) as ask:
        status, _, text = await ask(PATH)
    assert status == 200
    assert sentence in text
    assert "RouteReady" in text


async def test_a_cluster_that_hangs_is_named_at_the_deadline() -> None:
    class HangingKube(FakeKube):
        async def get(self, *_: Any) -> Any:
            await asyncio.Event().wait()

    async with served(reader(HangingKube()), read_seconds=0.05) as ask:
        status, _, text = await ask(PATH)
    assert (status, "The cluster does not answer" in text) == (504, True)


async def test_a_bug_takes_one_page_and_says_so() -> None:
    kube = installation()
    kube.put(ENGINES, engine("odd") | {"status": {"conditions": [{}]}})
    async with served(reader(kube)) as ask:
        odd, _, text = await ask(f"/engines/{NAMESPACE}/odd")
        other, _, _ = await ask(PATH)
    assert (odd, "This page failed" in text, other) == (500, True, 200)


async def test_a_list_that_is_too_long_says_that_a_namespace_can_be_chosen() -> None:
    kube = FakeKube()
    for number in range(MOST_LISTED + 150):
        kube.put(ENGINES, engine(f"e-{number}"))
    async with served(reader(kube)) as ask:
        _, _, text = await ask("/")
    assert "Only 300 are read. Choose a namespace." in text
    assert text.count("<tr>") == 1 + MOST_LISTED


async def test_a_page_that_is_paused_does_not_ask_again() -> None:
    async with served(reader()) as ask:
        _, _, following = await ask(f"{PATH}?request=req-1")
        _, _, paused = await ask(f"{PATH}?request=req-1&paused=1")
    assert ('http-equiv="refresh"' in following, 'href="?request=req-1&amp;paused=1"' in following) == (True, True)
    assert ('http-equiv="refresh"' in paused, 'href="?request=req-1"' in paused) == (False, True)


async def test_what_a_user_or_a_pod_wrote_is_text() -> None:
    kube = FakeKube()
    given = {"Ready": ("True", HOSTILE, HOSTILE), "Degraded": ("True", HOSTILE, HOSTILE), HOSTILE: ("True", HOSTILE, HOSTILE)}
    kube.put(ENGINES, engine(model=HOSTILE, conditions=given))
    status = kube.objects[("aliseengines", NAMESPACE, NAME)]["status"]
    status |= {"url": f"javascript:{HOSTILE}", "adapters": [{"name": HOSTILE, "message": HOSTILE}]}
    pod = a_pod(PODS[0])
    pod["spec"]["nodeName"] = HOSTILE
    put_pods(kube, NAME, NAMESPACE, [pod])
    kube.put(EVENTS, event(HOSTILE, HOSTILE, minutes=1))
    async with served(reader(kube)) as ask:
        for path in ("/", PATH, f"/?namespace={NAMESPACE}&paused={HOSTILE}"):
            _, _, text = await ask(path)
            assert "<script" not in text
            assert "<img src=x" not in text
            assert "&lt;img src=x" in text or "namespace" in path


async def test_a_port_that_is_taken_leaves_the_operator_without_its_page() -> None:
    async with serving.serving_page(reader(), 0) as port:
        assert port is not None
        async with serving.serving_page(reader(), port) as second:
            assert second is None
