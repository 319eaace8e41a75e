"""A status that the operator writes itself is not read again, and nothing that another writer changes meanwhile is missed."""

import asyncio
import copy
from collections.abc import Callable

import pytest

from alise_operator import events
from alise_operator.children.meta import Manifest
from alise_operator.errors import ClusterError
from alise_operator.observation import Pod
from alise_operator.reconcile import ENGINES
from tests.operator.builders import make_pod
from tests.operator.resting import at_rest, edited, kube_of, reads, void
from tests.operator.world import KEY, World


def version(world: World) -> str:
    return str(world.kube.objects[(ENGINES.plural, "default", "tiny")]["metadata"]["resourceVersion"])


def conditions(world: World) -> dict[str, str]:
    return {one["type"]: one["reason"] for one in world.status()["conditions"]}


async def written(world: World) -> list[str]:
    """Its pod gets ready, and the operator reports that. Returns what was read for it."""
    world.set_ready(1)
    world.reconciler.changed(KEY)
    before = len(world.kube.status_patches)
    kube_of(world).gets.clear()
    assert (await world.reconcile())["Ready"]["status"] == "True"
    assert len(world.kube.status_patches) == before + 1
    return list(kube_of(world).gets)


async def test_the_engine_is_not_read_again_after_the_operator_has_written_its_status() -> None:
    world = await at_rest()
    read = await written(world)
    assert read == [ENGINES.plural, "ingresses", "ingressclasses", "deployments", "replicasets", "pods", "secrets"]
    assert not world.reconciler.engine_changed(KEY, version(world))
    await world.reconciler.all_keys()
    assert await reads(world) == []
    assert (await world.reconcile())["Ready"]["status"] == "True"


async def test_the_watch_may_show_the_status_before_the_write_is_answered() -> None:
    world = await at_rest()
    kube_of(world).before_answer = lambda: void(world.reconciler.engine_changed(KEY, version(world)))
    await written(world)
    assert await reads(world) == []


async def test_the_watch_may_show_late_what_was_read_before_the_status_was_written() -> None:
    world = await at_rest()
    read = list[str]()
    kube_of(world).before_write = lambda: read.append(version(world))
    await written(world)
    assert not world.reconciler.engine_changed(KEY, read[0])
    assert await reads(world) == []


async def test_a_list_may_be_as_old_as_what_was_read_before_the_status_was_written() -> None:
    world = await at_rest()
    meta = world.kube.objects[(ENGINES.plural, "default", "tiny")]["metadata"]
    await written(world)
    newest, world.kube.objects[(ENGINES.plural, "default", "tiny")]["metadata"] = stored(world)["metadata"], meta
    assert meta["resourceVersion"] != newest["resourceVersion"]
    await world.reconciler.all_keys()
    assert await reads(world) == []


async def test_a_version_that_is_not_known_is_read() -> None:
    world = await at_rest()
    assert world.reconciler.engine_changed(KEY, "77")
    assert ENGINES.plural in await reads(world)


async def test_a_status_that_is_written_without_reading_is_not_read_either(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(pods: object) -> tuple[Pod, ...]:
        return (make_pod(report=None, report_error="no answer"),)

    world = await at_rest()
    await written(world)
    before = len(world.kube.status_patches)
    monkeypatch.setattr(world.poller, "poll", silent)
    kube_of(world).before_answer = lambda: void(world.reconciler.engine_changed(KEY, version(world)))
    assert await reads(world) == []
    assert (len(world.kube.status_patches), conditions(world)["Degraded"]) == (before + 1, "StatusUnavailable")
    assert await reads(world) == []
    assert not world.reconciler.engine_changed(KEY, version(world))


async def test_a_reconcile_that_ends_before_its_status_is_reported_leaves_nothing_that_is_older(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(pods: object) -> tuple[Pod, ...]:
        return (make_pod(report=None, report_error="no answer"),)

    async def cancelled(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    world = await at_rest()
    await written(world)
    with monkeypatch.context() as patched:
        patched.setattr(world.poller, "poll", silent)
        patched.setattr(events, "announce", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await world.reconcile()
    assert ENGINES.plural in await reads(world)


@pytest.mark.parametrize("is_watched", [True, False])
async def test_an_edit_while_a_status_is_written_without_reading_is_read(monkeypatch: pytest.MonkeyPatch, is_watched: bool) -> None:
    async def silent(pods: object) -> tuple[Pod, ...]:
        return (make_pod(report=None, report_error="no answer"),)

    def editing() -> None:
        edit_spec(world)
        if is_watched:
            assert world.reconciler.engine_changed(KEY, version(world))

    world = await at_rest()
    await written(world)
    monkeypatch.setattr(world.poller, "poll", silent)
    kube_of(world).before_write = editing
    assert await reads(world) == []
    kube_of(world).before_write = lambda: None
    await world.reconcile()
    assert world.deployment()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 77


def stored(world: World) -> Manifest:
    return copy.deepcopy(world.kube.objects[(ENGINES.plural, "default", "tiny")])


def edit_spec(world: World) -> None:
    engine = stored(world)
    world.kube.put(ENGINES, engine | {"spec": edited(drainSeconds=77), "metadata": engine["metadata"] | {"generation": 2}})


def edit_meta(**changes: object) -> Callable[[World], None]:
    def edit(world: World) -> None:
        engine = stored(world)
        world.kube.put(ENGINES, engine | {"metadata": engine["metadata"] | changes})

    return edit


def edit_status(world: World) -> None:
    engine = stored(world)
    world.kube.put(ENGINES, engine | {"status": engine["status"] | {"mine": True}})


EDITS = [
    pytest.param(edit_spec, id="its spec"),
    pytest.param(edit_meta(labels={"team": "a"}), id="a label"),
    pytest.param(edit_meta(annotations={"note": "a"}), id="an annotation"),
    pytest.param(edit_meta(deletionTimestamp="2026-01-01T00:00:00Z"), id="it is being deleted"),
    pytest.param(edit_status, id="its status"),
]


@pytest.mark.parametrize("change", EDITS)
async def test_what_another_writer_changes_before_the_status_is_written_is_read_although_no_watch_reports_it(
    change: Callable[[World], None],
) -> None:
    world = await at_rest()
    kube_of(world).before_write = lambda: change(world)
    await written(world)
    kube_of(world).before_write = lambda: None
    assert ENGINES.plural in await reads(world)


@pytest.mark.parametrize("change", EDITS)
@pytest.mark.parametrize("is_watched", [True, False])
async def test_what_another_writer_changes_before_the_write_is_answered_is_read(change: Callable[[World], None], is_watched: bool) -> None:
    world = await at_rest()

    def changing() -> None:
        kube_of(world).before_answer = lambda: None
        if is_watched:
            assert world.reconciler.engine_changed(KEY, version(world))
        change(world)
        if is_watched:
            assert world.reconciler.engine_changed(KEY, version(world))

    kube_of(world).before_answer = changing
    await written(world)
    if not is_watched:
        await world.reconciler.all_keys()
    assert ENGINES.plural in await reads(world)


async def test_an_edit_between_read_and_write_reaches_the_children() -> None:
    world = await at_rest()
    kube_of(world).before_write = lambda: edit_spec(world)
    await written(world)
    kube_of(world).before_write = lambda: None
    await world.reconcile()
    assert world.deployment()["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= 77
    assert world.status()["observedGeneration"] == 2


async def test_a_write_of_which_no_answer_came_is_read() -> None:
    def fails() -> None:
        raise ClusterError("no answer within 15 s", status=504)

    world = await at_rest()
    world.set_ready(1)
    world.reconciler.changed(KEY)
    kube_of(world).before_answer = fails
    with pytest.raises(ClusterError):
        await world.reconcile()
    kube_of(world).before_answer = lambda: None
    assert ENGINES.plural in await reads(world)
