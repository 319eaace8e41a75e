"""The rim: settings, logs, the HTTP endpoints, the clock and the workers."""

import asyncio
import copy
import io
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable

import aiohttp
import kopf
import pytest

from alise_operator import app as apps
from alise_operator import handlers, logs
from alise_operator.__main__ import RECURSION_LIMIT, parser
from alise_operator.app import App
from alise_operator.children.meta import MANAGED_BY, Manifest, selector
from alise_operator.cluster import Images
from alise_operator.errors import ApplyError, ClusterError, OperatorError
from alise_operator.kube import PAGE, Resource, answered
from alise_operator.poller import Poller
from alise_operator.reconcile import Key, Reconciler
from alise_operator.server import serving
from alise_operator.settings import ConfigError, Settings, load
from alise_operator.watches import watch_engines, watch_pods
from alise_operator.workqueue import FIRST_RETRY_SECONDS
from tests.operator.builders import OWNER, raw_spec
from tests.operator.fake_kube import FakeKube


def make_app(kube: FakeKube, poller: Poller, *, resync_seconds: float = 3600.0) -> App:
    return App(Reconciler(kube, poller, Images()), resync_seconds=resync_seconds)


async def until(probe: Callable[[], object]) -> None:
    """Gives other tasks their turn until the probe is true."""
    async with asyncio.timeout(10):
        while True:
            if probe():
                return
            await asyncio.sleep(0)


def test_settings_come_from_the_environment() -> None:
    settings = load({"ALISE_IMAGE_SCHEDULER": "reg/s:1", "ALISE_HTTP_PORT": "0", "ALISE_RESYNC_SECONDS": "2.5", "PATH": "/bin"})
    assert (settings.images.scheduler, settings.http_port, settings.resync_seconds) == ("reg/s:1", 0, 2.5)
    assert settings.images.engine_cpu == Images().engine_cpu


@pytest.mark.parametrize(
    ("env", "said"),
    [
        pytest.param({"ALISE_HTTP_PORT": "many"}, "ALISE_HTTP_PORT='many'", id="a port that is no number"),
        pytest.param({"ALISE_RESYNC_SECONDS": "0"}, "ALISE_RESYNC_SECONDS='0'", id="no pause between resyncs"),
        pytest.param({"ALISE_WATCH_NAMESPACE": "Team A"}, "ALISE_WATCH_NAMESPACE='Team A'", id="a namespace that cannot be"),
        pytest.param({"ALISE_LEASE_SECONDS": "1"}, "ALISE_LEASE_SECONDS='1'", id="a lease that is over before it is renewed"),
        pytest.param({"ALISE_LOG_LEVEL": "loud"}, "ALISE_LOG_LEVEL='loud'", id="an unknown log level"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(env: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(env)


def test_the_help_lists_every_setting_with_its_default() -> None:
    text = " ".join(parser().format_help().split())
    for field in Settings.model_fields.values():
        assert f"{field.alias} {field.description} Default: {field.default or 'empty'}.".replace("`", "") in text


def test_a_log_line_is_one_json_object_with_its_fields() -> None:
    stream, logger = io.StringIO(), logging.Logger("test")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    logger.addHandler(handler)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("it %s", "failed", extra={"engine": "default/tiny"})
    (line,) = stream.getvalue().splitlines()
    parsed = json.loads(line)
    assert (parsed["level"], parsed["message"], parsed["engine"]) == ("error", "it failed", "default/tiny")
    assert "ValueError: two\nlines" in parsed["exception"]


@pytest.mark.parametrize("level", [3, "loud"])
def test_a_field_named_level_does_not_replace_the_level_of_the_line(level: object) -> None:
    record = logging.makeLogRecord({"msg": "watching", "levelname": "WARNING", "name": "kopf", "level": level, "logger": "another"})
    parsed = json.loads(logs.JsonFormatter().format(record))
    assert (parsed["level"], parsed["logger"]) == ("warning", "kopf")


async def test_metrics_and_health_are_served() -> None:
    kube = FakeKube()
    async with (
        Poller() as poller,
        make_app(kube, poller) as app,
        serving(app.unhealthy, "127.0.0.1", 0) as port,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            text = await answer.text()
        async with session.get(f"http://127.0.0.1:{port}/healthz") as answer:
            health = answer.status
    assert "alise_operator_queue_length" in text
    assert health == 200


async def test_a_dead_worker_makes_the_process_unhealthy() -> None:
    async with Poller() as poller, make_app(FakeKube(), poller) as app:
        assert app.unhealthy() is None
        task = next(one for one in asyncio.all_tasks() if one.get_name() == "worker-0")
        task.cancel()
        await until(task.done)
        assert app.unhealthy() == "task worker-0 has ended"


async def test_a_seen_resource_is_reconciled() -> None:
    kube = FakeKube()
    kube.put_engine(raw_spec())
    async with Poller() as poller, make_app(kube, poller) as app:
        app.queue.add(Key("default", "tiny"))
        await until(lambda: kube.status_patches)
    assert kube.names("deployments") == ["tiny"]


async def test_every_resource_is_looked_at_again_and_again_without_any_watch() -> None:
    kube = FakeKube()
    kube.put_engine(raw_spec())
    async with Poller() as poller, make_app(kube, poller, resync_seconds=0.001):
        await until(lambda: kube.status_patches)
        kube.put_engine(raw_spec(replicas=2), generation=2)
        await until(lambda: kube.objects[("deployments", "default", "tiny")]["spec"]["replicas"] == 2)
    assert kube.names("poddisruptionbudgets") == ["tiny"]


async def test_the_clock_goes_on_while_the_api_server_is_away() -> None:
    kube = FakeKube()
    kube.away = True
    async with Poller() as poller, make_app(kube, poller, resync_seconds=0.001) as app:
        kube.put_engine(raw_spec())
        await until(lambda: kube.refusals >= 3)
        kube.away = False
        await until(lambda: kube.names("deployments"))
        assert app.unhealthy() is None


async def test_a_bug_in_one_reconcile_stops_neither_the_worker_nor_the_others(caplog: pytest.LogCaptureFixture) -> None:
    kube = FakeKube()
    kube.put_engine(raw_spec())
    kube.put_engine(raw_spec(), name="broken")
    # Not what an API server stores: a bug as good as any.
    del kube.objects[("aliseengines", "default", "broken")]["metadata"]["generation"]
    async with Poller() as poller, make_app(kube, poller) as app:
        app.queue.add(Key("default", "broken"))
        app.queue.add(Key("default", "tiny"))
        await until(lambda: kube.status_patches and "reconcile failed unexpectedly" in caplog.text)
        assert app.unhealthy() is None


async def test_a_reconcile_that_takes_too_long_is_cancelled_and_retried(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(FakeKube):
        async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
            if name == "slow":
                await asyncio.Event().wait()
            return await super().get(resource, namespace, name)

    monkeypatch.setattr(apps, "RECONCILE_SECONDS", 0.01)
    kube = Slow()
    kube.put_engine(raw_spec(), name="slow")
    async with Poller() as poller, make_app(kube, poller) as app:
        app.queue.add(Key("default", "slow"))
        await until(lambda: "a reconcile exceeded its time limit and was cancelled" in caplog.text)
        assert app.unhealthy() is None
    (record,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert (vars(record)["engine"], vars(record)["retry_seconds"]) == ("default/slow", FIRST_RETRY_SECONDS)


async def test_a_pod_that_changes_asks_for_its_resource() -> None:
    kube, seen = FakeKube(), asyncio.Queue[Key]()
    watching = asyncio.create_task(watch_pods(kube, "", seen.put_nowait, lambda: None))
    for labels in (None, {}, {"alise.dev/engine": "tiny"}):
        kube.changes.put_nowait({"metadata": {"namespace": "default", "name": "tiny-1", "labels": labels}})
    assert await asyncio.wait_for(seen.get(), 10) == Key("default", "tiny")
    assert seen.empty()
    watching.cancel()


async def test_pods_are_watched_by_the_label_that_a_template_cannot_change() -> None:
    class Selecting(FakeKube):
        async def version(self, resource: Resource, namespace: str, *, labels: str = "") -> str:
            asked.append(labels)
            return await super().version(resource, namespace, labels=labels)

    asked = list[str]()
    watching = asyncio.create_task(watch_pods(Selecting(), "", lambda _: None, lambda: None))
    await until(lambda: bool(asked))
    watching.cancel()
    (label,) = asked
    assert label in selector(OWNER)


async def test_a_resource_that_changes_is_asked_for() -> None:
    kube, seen = FakeKube(), asyncio.Queue[tuple[Key, Manifest]]()
    watching = asyncio.create_task(watch_engines(kube, "", lambda *found: seen.put_nowait(found), lambda: None))
    meta = {"namespace": "default", "name": "tiny", "generation": 3}
    kube.changes.put_nowait({"metadata": meta})
    assert await asyncio.wait_for(seen.get(), 10) == (Key("default", "tiny"), meta)
    watching.cancel()


async def test_a_watch_goes_on_where_it_ended_and_says_when_it_cannot() -> None:
    class Versions(FakeKube):
        async def watch(self, resource: Resource, namespace: str, *, labels: str = "", since: str = "") -> AsyncIterator[Manifest]:
            opened.append(since)
            match len(opened):
                case 1:
                    # As at the end of a quiet watch: a version, and no object.
                    yield {"metadata": {"resourceVersion": "7"}}
                case 2:
                    raise ClusterError("too old", status=410)
                case _:
                    await asyncio.Event().wait()

    kube, opened, missed = Versions(), list[str](), list[str]()
    watching = asyncio.create_task(watch_pods(kube, "", lambda _: None, lambda: missed.append("all"), pause_seconds=0.0))
    await until(lambda: len(opened) == 3)
    assert opened == ["0", "7", "0"]
    assert len(missed) == 2
    watching.cancel()


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(ClusterError("Too large resource version", status=504), id="the store was set back"),
        pytest.param(ApplyError("invalid resource version"), id="another store"),
    ],
)
async def test_a_watch_does_not_ask_again_for_a_version_that_is_refused(refusal: OperatorError) -> None:
    class Refusing(FakeKube):
        async def watch(self, resource: Resource, namespace: str, *, labels: str = "", since: str = "") -> AsyncIterator[Manifest]:
            opened.append(since)
            if len(opened) == 1:
                yield {"metadata": {"resourceVersion": "7"}}
                raise refusal
            await asyncio.Event().wait()

    opened = list[str]()
    watching = asyncio.create_task(watch_pods(Refusing(), "", lambda _: None, lambda: None, pause_seconds=0.0))
    await until(lambda: len(opened) == 2)
    assert opened == ["0", "0"]
    watching.cancel()


async def test_a_watch_that_ends_at_once_is_not_opened_without_a_pause() -> None:
    class Ending(FakeKube):
        async def watch(self, resource: Resource, namespace: str, *, labels: str = "", since: str = "") -> AsyncIterator[Manifest]:
            opened.append(since)
            nothing: tuple[Manifest, ...] = ()
            for one in nothing:
                yield one

    opened = list[str]()
    watching = asyncio.create_task(watch_pods(Ending(), "", lambda _: None, lambda: None))
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(opened) == 1
    watching.cancel()


async def test_engines_are_looked_at_although_their_children_cannot_be_listed() -> None:
    kube = FakeKube()
    kube.forbidden.add("networkpolicies")
    kube.put_engine(raw_spec())
    async with Poller() as poller, make_app(kube, poller):
        await until(lambda: kube.status_patches)


async def test_a_watch_that_fails_is_opened_again() -> None:
    kube, seen = FakeKube(), asyncio.Queue[Key]()
    kube.away = True
    watching = asyncio.create_task(watch_pods(kube, "", seen.put_nowait, lambda: None, pause_seconds=0.0))
    await until(lambda: kube.refusals >= 2)
    kube.away = False
    kube.changes.put_nowait({"metadata": {"namespace": "default", "name": "tiny-1", "labels": {"alise.dev/engine": "tiny"}}})
    assert await asyncio.wait_for(seen.get(), 10) == Key("default", "tiny")
    watching.cancel()


def test_in_one_namespace_kopf_asks_for_nothing_of_the_cluster() -> None:
    settings = kopf.OperatorSettings()
    handlers.configure(settings, is_namespaced=True)
    assert settings.scanning.disabled


def test_objects_that_are_watched_come_in_pages_and_do_not_stay() -> None:
    settings = kopf.OperatorSettings()
    handlers.configure(settings)
    assert settings.watching.chunk_size == PAGE
    assert settings.queueing.idle_timeout < 1


def test_neither_pods_nor_resources_are_among_what_kopf_remembers() -> None:
    assert {plural for _, _, plural in handlers.WATCHED} & {"pods", "aliseengines"} == set()


def test_an_object_that_is_nested_as_deeply_as_an_api_server_takes_is_read_copied_and_written() -> None:
    deep = b'{"spec": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}"
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(RECURSION_LIMIT)
    try:
        found = answered("GET /x", 200, deep)
        assert json.dumps(copy.deepcopy(found), separators=(",", ":")).encode() == deep.replace(b" ", b"")
    finally:
        sys.setrecursionlimit(limit)


def test_only_our_own_children_come_over_the_wire() -> None:
    settings = kopf.OperatorSettings()
    handlers.configure(settings)
    for group, version, plural in handlers.WATCHED:
        assert settings.watching.label_selectors[group, version, plural] == f"{MANAGED_BY}=alise-operator"
    assert not settings.posting.enabled
    assert settings.watching.server_timeout
    assert settings.networking.request_timeout
