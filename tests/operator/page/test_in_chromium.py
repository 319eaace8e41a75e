"""The page in a real browser: what it shows, that nothing in it runs, and its pictures in `bench-results/page`."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from alise_operator.page import server
from alise_operator.page.read import Reader
from alise_operator.reconcile import ENGINES
from kubectl_alise.ui import Ui, serving
from tests.operator.fake_kube import FakeKube
from tests.operator.page import chromium
from tests.operator.page.installation import (
    HOSTILE,
    NAME,
    NAMESPACE,
    PODS,
    LocalOperator,
    cluster,
    engine,
    installation,
    pod,
    put_pods,
    reader,
    some_requests,
)
from tests.operator.plugin.fake_cluster import FakeCluster
from tests.operator.plugin.objects import request

pytestmark = pytest.mark.process
PICTURES = Path(__file__).parents[3] / "bench-results" / "page"
ENGINE = f"/engines/{NAMESPACE}/{NAME}"
CARELESS = f"<!doctype html><title>careless</title><p>{HOSTILE}</p>"


class Elements(HTMLParser):
    """The elements of a document, and its text."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(document)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


class Browser:
    """A browser before the page of an operator, as `kubectl alise ui` serves it."""

    def __init__(self, address: str, folder: Path) -> None:
        self._address, self._folder = address, folder

    def _url(self, path: str) -> str:
        at, _, key = self._address.partition("/?")
        return f"{at}{path}{'&' if '?' in path else '?'}{key}"

    async def look(self, path: str) -> Elements:
        return Elements(await asyncio.to_thread(chromium.dom_of, self._url(path), self._folder))

    async def take_picture(self, path: str, name: str, scheme: str) -> bytes:
        file = PICTURES / name
        await asyncio.to_thread(chromium.take_picture, self._url(path), self._folder, file, scheme)
        return file.read_bytes()


async def served(found: Reader, seen: FakeCluster, folder: Path) -> AsyncIterator[Browser]:
    runner = web.AppRunner(server.application(found))
    await runner.setup()
    await web.TCPSite(runner, server.HOST, 0).start()
    here, address = serving(Ui(LocalOperator(runner.addresses[0][1]), lambda _: seen), 0)
    with here:
        thread = threading.Thread(target=here.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Browser(address, folder)
        finally:
            await asyncio.to_thread(here.shutdown)
            thread.join(timeout=10)
            await runner.cleanup()


@pytest_asyncio.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async for found in served(reader(installation()), cluster(*some_requests()), tmp_path):
        yield found


@pytest_asyncio.fixture
async def hostile(tmp_path: Path) -> AsyncIterator[Browser]:
    """Every text that a user, a client or a pod chooses would run, if it were not text."""
    kube = FakeKube()
    kube.put(ENGINES, engine(model=HOSTILE, conditions=dict.fromkeys(("Ready", "Degraded"), ("True", HOSTILE, HOSTILE))))
    node = pod(PODS[0])
    node["spec"]["nodeName"] = HOSTILE
    put_pods(kube, NAME, NAMESPACE, [node])
    seen = cluster(request(HOSTILE, phase="offloaded", **{"class": HOSTILE}), first=PODS[0])
    async for found in served(reader(kube), seen, tmp_path):
        yield found


async def test_a_browser_lists_all_engines_and_what_is_wrong(browser: Browser) -> None:
    page = await browser.look("/")
    links = [one.get("href") for one in page.all("a")]
    assert f"/engines/{NAMESPACE}/draft" in links
    assert "ImagePull" in page.text
    assert "6 AliseEngines" in page.text or "AliseEngines6" in page.text


async def test_a_browser_shows_an_engine_with_its_requests_and_the_account_of_one(browser: Browser) -> None:
    page = await browser.look(f"{ENGINE}?request=01HF3Q8ZK4-nina")
    assert [name for name in PODS if name not in page.text] == []
    assert "01HF3Q8ZK4-nina" in page.text
    assert "14 requests rank before it" in page.text
    assert "96 of 120" in page.text
    assert f"{PODS[2]}: " in page.text
    assert "Requests are read with your own rights" not in page.text


async def test_nothing_that_a_client_a_user_or_a_pod_wrote_runs(hostile: Browser, tmp_path: Path) -> None:
    careless = tmp_path / "careless.html"
    careless.write_text(CARELESS)
    # The same browser runs it where it is not escaped, so this test can fail.
    assert "<title>owned</title>" in await asyncio.to_thread(chromium.dom_of, careless.as_uri(), tmp_path / "careless")
    for path in ("/", ENGINE, f"{ENGINE}?request=%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D%27owned%27%22%3E"):
        page = await hostile.look(path)
        assert "onerror" in page.text, path
        assert [one.get("src") for one in page.all("img")] == ["/icon.svg"], path
        assert page.all("script") == []
        assert "owned" not in (page.text.partition("alise")[0]), path


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pictures_are_kept_of_one_screen(browser: Browser, scheme: str) -> None:
    for path, name in (("/", "engines"), (f"{ENGINE}?request=req-7b34", "engine")):
        picture = await browser.take_picture(path, f"{name}-{scheme}.png", scheme)
        assert picture.startswith(b"\x89PNG")
