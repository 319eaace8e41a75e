"""What the page decides to show of an AliseEngine, its pods and its events."""

from typing import Any

import pytest

from alise_operator.load import Load, load_of
from alise_operator.observation import Observation, Trouble
from alise_operator.page import view
from alise_operator.page.shown import AdapterRow, Share
from alise_operator.predicted_work import Work
from tests.operator.builders import make_pod, make_report, make_workload
from tests.operator.page.installation import DEGRADED, NOW, ago, engine, event

ROLLING = {"Progressing": ("True", "RollingOut", "a rollout")}
BROKEN = {"Ready": ("False", "ImagePull", DEGRADED), "Degraded": ("True", "ImagePull", DEGRADED)}
STATES: list[Any] = [
    pytest.param({}, ("Serving", "good"), id="serves"),
    pytest.param(ROLLING, ("Rolling out", "busy"), id="rolls out"),
    pytest.param({"Progressing": ("True", "LoadingAdapters", "it loads")}, ("Loading adapters", "busy"), id="loads adapters"),
    pytest.param({"Progressing": ("True", "Draining", "streams")}, ("Draining", "busy"), id="finishes streams"),
    pytest.param(BROKEN, ("ImagePull", "bad"), id="does not serve"),
    pytest.param({"Degraded": ("True", "SchedulerDown", "it is down")}, ("Degraded", "warn"), id="serves and is degraded"),
    pytest.param({"RouteReady": ("False", "HostTaken", "taken")}, ("Degraded", "warn"), id="its route leads nowhere"),
    pytest.param({"Ready": ("False", "Starting", "starting")}, ("Starting", "busy"), id="starts"),
    pytest.param({"Ready": ("False", "Suspended", "stopped")}, ("Suspended", "idle"), id="is suspended"),
    pytest.param({"Ready": ("False", "ScaledToZero", "idle")}, ("Scaled to zero", "idle"), id="is scaled to zero"),
]


@pytest.mark.parametrize(("conditions", "expected"), STATES)
def test_the_state_is_one_word_and_a_colour(conditions: Any, expected: tuple[str, str]) -> None:
    found = view.state_of(engine(conditions=conditions))
    assert (found.text, found.tone) == expected


def test_a_resource_that_was_never_reported_on_says_so() -> None:
    shown = view.engine_page(engine() | {"status": {}}, None, (), (), NOW)
    assert (shown.state.text, shown.summary, shown.troubles) == ("Not reported", "The operator has not reported on it yet.", [])


def test_the_list_begins_with_what_needs_attention() -> None:
    shown = view.overview([engine("fine"), engine("broken", conditions=BROKEN), engine("rolling", conditions=ROLLING)], {}, NOW)
    assert [row.name for row in shown.rows] == ["broken", "rolling", "fine"]
    assert shown.rows[0].trouble.startswith("Pod draft-7c9d6f5b8-4xk2p: container engine:")


def test_the_tiles_are_sums_over_all_resources() -> None:
    loads = {("team-chat", "a"): Load(3, 2, 1, 60.0, 0), ("team-chat", "b"): Load(4, 1, 0, 240.0, 2)}
    shown = view.overview([engine("a", ready=1, replicas=2), engine("b", conditions=BROKEN)], loads, NOW)
    tiles = {tile.label: tile.value for tile in shown.tiles}
    assert tiles == {
        "AliseEngines": "2",
        "need attention": "1",
        "pods ready": "2 of 3",
        "requests running": "7",
        "requests waiting": "3",
        "predicted work": "5 min",
    }
    assert shown.missing == ["No answer from 2 ready pods: the figures are those of the other pods."]


def test_a_trouble_is_shown_once_and_in_full() -> None:
    shown = view.engine_page(engine(conditions=BROKEN), None, (), (), NOW)
    assert [(one.type, one.message) for one in shown.troubles] == [("Degraded", f"P{DEGRADED[1:]}.")]


PODS: list[Any] = [
    pytest.param({}, ("Ready", "good"), "", id="it answers"),
    pytest.param({"report": None}, ("Ready", "good"), "It has not answered the operator yet.", id="it was not asked"),
    pytest.param({"report": None, "report_error": "no answer"}, ("Ready", "warn"), "Its figures are missing: no answer.", id="silent"),
    pytest.param({"report": None, "ready": False}, ("Starting", "busy"), "It is asked once it is ready.", id="it starts"),
    pytest.param({"report": None, "terminating": True}, ("Draining", "busy"), "It is not asked, because it ends.", id="it ends"),
    pytest.param(
        {"report": None, "ready": False, "troubles": (Trouble("ImagePull", "the image is missing"),)},
        ("ImagePull", "bad"),
        "The image is missing.",
        id="it cannot start",
    ),
]


@pytest.mark.parametrize(("changes", "state", "note"), PODS)
def test_a_pod_says_why_its_figures_are_missing(changes: Any, state: tuple[str, str], note: str) -> None:
    seen = Observation(make_workload(), (make_pod(**changes),))
    (shown,) = view.engine_page(engine(), seen, (), (), NOW).pods
    assert ((shown.state.text, shown.state.tone), shown.note) == (state, note)


def test_a_pod_shows_what_it_reports() -> None:
    report = make_report(requests_running=8, requests_waiting=5, requests_offloaded=2, work=Work(94.0, 1.0), host_used_bytes=1 << 29)
    pod = make_pod(report=report, node="node-1", restarts=2, created=ago(hours=3, minutes=10), template="old")
    shown = view.engine_page(engine(), Observation(make_workload(template="new"), (pod,)), (), (), NOW)
    (row,) = shown.pods
    assert (row.running, row.waiting, row.offloaded, row.backlog, row.ranked) == ("8", "5", "2", "94 s", "by rank")
    assert (row.spec, row.node, row.restarts, row.age) == ("older", "node-1", 2, "3 h 10 min")
    assert row.host == Share(50, "0.5 of 1.0 GiB")
    assert row.kv is None


def test_the_newest_events_come_first() -> None:
    events = [event("Old", "first", minutes=50), event("New", "last", minutes=2, kind="Warning", count=3)]
    shown = view.engine_page(engine(), None, events, (), NOW).events
    assert [(one.reason, one.tone, one.message, one.age, one.count) for one in shown] == [
        ("New", "warn", "Last.", "2 min", 3),
        ("Old", "idle", "First.", "50 min", 1),
    ]


def test_adapters_say_in_how_many_pods_they_are_loaded() -> None:
    resource = engine()
    resource["status"]["adapters"] = [{"name": "sql", "loadedPods": 1, "message": "loaded in 1 of 2 pods that report"}]
    shown = view.engine_page(resource, None, (), (), NOW).adapters
    assert shown == [AdapterRow("sql", "Loaded in 1 of 2 pods that report.")]


def test_the_load_of_pods_counts_those_that_are_silent() -> None:
    pods = [make_pod(report=make_report(requests_running=2, work=Work(5.0))), make_pod(report=None), make_pod(report=None, ready=False)]
    assert load_of(pods) == Load(2, 0, 0, 5.0, 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (12000, "3 h 20 min"), (200000, "2 d"), (-3, "0 s")],
)
def test_a_time_has_the_units_that_matter(seconds: float, text: str) -> None:
    assert view.duration(seconds) == text


def test_a_time_that_is_none_is_empty() -> None:
    assert view.age("<img>", NOW) == ""
