"""What goes before a round of all AliseEngines: edits, new ones and edits that have failed, but no status and nothing at the start."""

import asyncio
from collections.abc import Callable

import pytest

from alise_operator.app import App
from alise_operator.children.meta import Manifest
from alise_operator.cluster import Images
from alise_operator.errors import ClusterError
from alise_operator.kube import Resource
from alise_operator.poller import Poller
from alise_operator.reads import Edition
from alise_operator.reconcile import Key, Reconciler
from tests.operator.builders import raw_spec
from tests.operator.fake_kube import FakeKube

ANY = Key("default", "other-0")


def make_app(kube: FakeKube, poller: Poller) -> App:
    """One that is not started, so that the test takes the keys."""
    return App(Reconciler(kube, poller, Images()), resync_seconds=3600.0)


def meta_of(key: Key, *, uid: str = "first", generation: int = 1, version: str = "1") -> Manifest:
    return {"namespace": key.namespace, "name": key.name, "uid": uid, "generation": generation, "resourceVersion": version}


def a_round(app: App) -> None:
    """Of many resources."""
    for number in range(100):
        app.queue.add(Key("default", f"other-{number}"))


async def test_an_edit_goes_before_a_round_of_all_resources_and_a_status_does_not() -> None:
    edited, written = Key("default", "edited"), Key("default", "written")
    async with Poller() as poller:
        app = make_app(FakeKube(), poller)
        app.listed({})
        for key in (edited, written):
            app.edited(key, meta_of(key))
            app.queue.done(await app.queue.take())
        a_round(app)
        app.edited(written, meta_of(written, version="2"))
        app.edited(edited, meta_of(edited, generation=2, version="2"))
        assert await app.queue.take() == edited
        assert await app.queue.take() == ANY


async def test_a_resource_that_is_created_anew_goes_before_a_round_although_its_generation_is_1_again() -> None:
    key = Key("default", "tiny")
    async with Poller() as poller:
        app = make_app(FakeKube(), poller)
        app.listed({})
        app.edited(key, meta_of(key))
        app.queue.done(await app.queue.take())
        a_round(app)
        app.edited(key, meta_of(key, uid="second", version="2"))
        assert await app.queue.take() == key


async def test_resources_that_existed_at_the_start_do_not_go_first_when_their_status_is_written() -> None:
    kube, key = FakeKube(), Key("default", "tiny")
    kube.put_engine(raw_spec())
    async with Poller() as poller:
        app = make_app(kube, poller)
        app.listed(await app.reconciler.all_keys())
        assert app.queue.waiting == 0
        a_round(app)
        app.edited(key, kube.objects[("aliseengines", "default", "tiny")]["metadata"] | {"resourceVersion": "77"})
        assert await app.queue.take() == ANY


async def test_a_resource_that_a_list_shows_before_the_watch_does_goes_first() -> None:
    kube, key = FakeKube(), Key("default", "tiny")
    async with Poller() as poller:
        app = make_app(kube, poller)
        app.listed(await app.reconciler.all_keys())
        a_round(app)
        kube.put_engine(raw_spec())
        app.listed(await app.reconciler.all_keys())
        assert await app.queue.take() == key


async def test_before_the_first_list_nothing_goes_first() -> None:
    key = Key("default", "tiny")
    async with Poller() as poller:
        app = make_app(FakeKube(), poller)
        a_round(app)
        app.edited(key, meta_of(key))
        assert await app.queue.take() == ANY


async def test_a_resource_that_a_list_shows_created_anew_goes_first() -> None:
    key = Key("default", "tiny")
    async with Poller() as poller:
        app = make_app(FakeKube(), poller)
        app.listed({key: Edition("first", 3)})
        a_round(app)
        app.listed({key: Edition("second", 1)})
        assert await app.queue.take() == key


async def test_a_list_that_is_older_than_what_the_watch_reported_changes_nothing() -> None:
    key = Key("default", "tiny")
    async with Poller() as poller:
        app = make_app(FakeKube(), poller)
        app.listed({key: Edition("first", 1)})
        app.edited(key, meta_of(key, generation=2, version="2"))
        app.queue.done(await app.queue.take())
        a_round(app)
        app.listed({key: Edition("first", 1)})
        app.edited(key, meta_of(key, generation=2, version="3"))
        assert await app.queue.take() == ANY


async def test_after_an_empty_list_the_next_one_floods_nothing() -> None:
    there = {Key("default", f"tiny-{number}"): Edition(str(number), 1) for number in range(5)}
    async with Poller() as poller:
        app = make_app(FakeKube(), poller)
        for found in (there, {}, there):
            app.listed(found)
        a_round(app)
        assert await app.queue.take() == ANY


async def test_a_failed_edit_goes_before_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(FakeKube):
        async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
            raise ClusterError("the object has been modified", status=409)

    def call_later(_: float, call: Callable[[], None]) -> asyncio.Handle:
        retries.append(call)
        return asyncio.get_running_loop().call_soon(lambda: None)

    retries, key = list[Callable[[], None]](), Key("default", "tiny")
    async with Poller() as poller:
        app = make_app(Failing(), poller)
        app.listed({})
        monkeypatch.setattr(app.queue, "_call_later", call_later)
        app.edited(key, meta_of(key))
        await app._one(await app.queue.take())
        app.queue.done(key)
        a_round(app)
        retries[0]()
        assert await app.queue.take() == key
