"""What the suite of hostile clients counts, and which requests it sends."""

import asyncio
import json
from typing import Any

import pytest

from alise_contract.v1 import admission_pb2, engine_control_pb2
from tests.bench import hostile, hostile_before, hostile_beside
from tests.bench.harness import Row, Settings, verdict
from tests.bench.hostile_forging import BODIES, Loot, channels, forged
from tests.bench.hostile_inputs import BY_ID, GOOD, INPUTS
from tests.bench.hostile_served import Heard
from tests.bench.hostile_wire import Framing, exchange, message, parse_head

QUICK = Settings(quick=True, seeds=1, dataset=None)
LOOT = Loot("job", "aGludA==", "-549755813888.00", "cmpl-1")


# --- forging ----------------------------------------------------------------------------------------------------------------------

OWN = {"job": "its own", "hint": True, "priority": -9, "allowed": True}


def channel(**more: Any) -> Row:
    """An attempt that got what the honest twin got."""
    honest = {"tenant": "hostile", "klass": ""}
    row = {"kind": "channel", "id": "c", "setting": "s", "status": 200, "entitled": "hostile", "asks": [honest], "levels": [-2]}
    return {**row, "twin_levels": [-2], "entered": [OWN], **more}


def test_what_the_honest_twin_got_is_no_forgery() -> None:
    assert forged(channel()) == ""


FORGERIES = [
    pytest.param({"asks": [{"tenant": "honest", "klass": ""}]}, "tenant 'honest'", id="another tenant"),
    pytest.param({"asks": [{"tenant": "hostile", "klass": "gold"}]}, "class 'gold'", id="a class that the client does not have"),
    pytest.param({"entered": [{**OWN, "job": "none"}]}, "job is none", id="a request that came around the middleware"),
    pytest.param({"entered": [OWN, {**OWN, "job": "of another request"}]}, "job is of another request", id="another request's job"),
    pytest.param({"entered": [{**OWN, "hint": False}]}, "hint", id="a hint of its own"),
    pytest.param({"entered": [{**OWN, "priority": -99, "allowed": False}]}, "priority -99", id="a priority of its own"),
    pytest.param({"levels": [-5]}, "level -5, where the honest twin has -2", id="a better level than the honest twin"),
]


@pytest.mark.parametrize(("more", "reason"), FORGERIES)
def test_what_the_scheduler_did_not_give_is_forged(more: dict[str, Any], reason: str) -> None:
    assert reason in forged(channel(**more))


REFUSED = [
    pytest.param({"asks": [], "levels": [], "entered": []}, id="refused before anybody was asked"),
    pytest.param({"levels": [0]}, id="a worse level"),
    pytest.param({"levels": [-3]}, id="a level that has drifted"),
    pytest.param({"twin_levels": []}, id="a twin that the scheduler rejected"),
]


@pytest.mark.parametrize("more", REFUSED)
def test_less_than_the_twin_got_is_no_forgery(more: dict[str, Any]) -> None:
    assert forged(channel(**more)) == ""


def test_there_are_more_channels_than_the_goal_asks_for_and_none_twice() -> None:
    ids = [one.id for one in channels(LOOT)]
    assert len(ids) == len(set(ids)) >= 15


def test_every_generating_route_of_json_is_tried() -> None:
    assert {f"everything at once on {path}" for path in BODIES} <= {one.id for one in channels(LOOT)}


def test_a_forged_channel_misses_the_goal_and_is_named() -> None:
    made = {figure.name: figure for figure in hostile.figures([channel(), channel(id="bad", levels=[-9])], QUICK)}
    assert (made["rank_forged"].value, verdict(made["rank_forged"])) == (1, "missed")
    assert "bad: level -9" in made["rank_forged"].unit


# --- what the relay hears ------------------------------------------------------------------------------------------------------------


def test_a_job_may_have_the_priority_of_its_admission_and_those_of_the_plans() -> None:
    heard = Heard()
    answer = admission_pb2.AdmitResponse(admitted=admission_pb2.Admitted(priority=-5))
    heard.hear("/alise.v1.Admission/Admit", admission_pb2.AdmitAnswer(job_id="a", response=answer).SerializeToString())
    plan = engine_control_pb2.ApplyRequest(ranks=[engine_control_pb2.Rank(job_id="a", level=0, order=7)])
    heard.hear("/alise.v1.EngineControl/Apply?", plan.SerializeToString())
    assert (heard.allowed("a"), heard.allowed("b")) == ({-5, 7}, set())


def test_a_request_that_is_seen_without_a_fresh_plan_is_remembered() -> None:
    heard = Heard()
    row = engine_control_pb2.EngineRequest(request_id="r", job_id="a")
    update = engine_control_pb2.WatchResponse(sequence=2, update=engine_control_pb2.Update(requests=[row]))
    heard.hear("/alise.v1.EngineControl/Watch", update.SerializeToString())
    assert (heard.unplanned, heard.watched) == ({"r"}, True)


def test_an_admission_that_is_taken_back_is_no_question() -> None:
    heard = Heard()
    for withdrawn in (False, True):
        ask = admission_pb2.AdmitRequest(job_id="a", withdrawn=withdrawn)
        heard.hear("/alise.v1.Admission/Admit?", ask.SerializeToString())
    assert len(heard.admitted()) == 1


# --- on the wire ------------------------------------------------------------------------------------------------------------------


def test_a_chunked_message_says_nothing_of_its_length() -> None:
    made = message("POST", "/", {}, b"abcd", Framing.CHUNKED)
    assert made.endswith(b"\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n")
    assert b"content-length" not in made


def test_a_message_may_be_framed_in_two_ways() -> None:
    made = message("POST", "/", {}, b"abcd", Framing.BOTH)
    assert b"content-length: 4\r\n" in made
    assert b"transfer-encoding: chunked\r\n" in made


def test_a_message_may_declare_more_than_it_sends() -> None:
    assert b"content-length: 100\r\n" in message("POST", "/", {}, b"abcd", declared_bytes=100)


HEADS = [
    pytest.param(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n\r\n", (429, {"retry-after": "1"}), id="an answer"),
    pytest.param(b"", (0, {}), id="nothing"),
    pytest.param(b"garbage\r\n\r\n", (0, {}), id="no HTTP"),
]


@pytest.mark.parametrize(("head", "parsed"), HEADS)
def test_the_head_of_an_answer(head: bytes, parsed: tuple[int, dict[str, str]]) -> None:
    assert parse_head(head) == parsed


async def _server(answer: bytes) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


ANSWERS = [
    pytest.param(b"HTTP/1.1 200 OK\r\n\r\nbody", (200, b"body"), id="an answer"),
    pytest.param(b"", (0, b""), id="a connection that ends without one"),
]


@pytest.mark.parametrize(("sent", "got"), ANSWERS)
async def test_an_exchange_returns_what_came(sent: bytes, got: tuple[int, bytes]) -> None:
    async with await _server(sent) as server:
        answer = await exchange(server.sockets[0].getsockname()[1], message("POST", "/", {}, b"x"), 5.0)
    assert (answer.status, answer.body) == got


async def test_a_port_where_nobody_listens_is_no_answer() -> None:
    server = await _server(b"")
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    assert (await exchange(port, b"x", 5.0)).status == 0


# --- beside honest clients ----------------------------------------------------------------------------------------------------------


def beside(side: str, ttft_ms: list[float], **more: Any) -> Row:
    row = {
        "kind": "beside",
        "side": side,
        "input": "i",
        "case": "L1",
        "control": False,
        "seed": 0,
        "setting": "s",
        "rejected": 0,
        "sent": 10,
        "pace": 2.0,
    }
    return {**row, "statuses": {400: 10}, "wrong_statuses": [], "failures": [], "ttft_ms": ttft_ms, **more}


def test_the_ratio_is_of_what_honest_clients_wait() -> None:
    [ratio] = hostile_beside.ratios([beside("hostile", [30.0] * 100), beside("good", [20.0] * 100)])
    assert (ratio.value, ratio.share) == (1.5, 0.99)


def test_with_few_requests_it_is_of_95th_percentiles() -> None:
    [ratio] = hostile_beside.ratios([beside("hostile", [1.0] * 99), beside("good", [1.0] * 100)])
    assert ratio.share == 0.95


def test_seeds_are_taken_together_and_their_spread_is_told() -> None:
    rows = [beside(side, [ms] * 60, seed=seed) for seed, ms in ((0, 10.0), (1, 10.0)) for side in ("hostile", "good")]
    rows += [beside("hostile", [40.0] * 60, seed=2), beside("good", [10.0] * 60, seed=2)]
    [ratio] = hostile_beside.ratios(rows)
    assert (ratio.value, ratio.least, ratio.most) == (4.0, 1.0, 4.0)


def test_the_figure_is_the_worst_input_and_names_it() -> None:
    rows = [beside(side, [10.0] * 100) for side in ("hostile", "good")]
    rows += [beside("hostile", [90.0] * 100, input="worse"), beside("good", [10.0] * 100, input="worse")]
    figure = next(figure for figure in hostile.figures(rows, QUICK) if figure.name == "honest_p99_ttft_beside_hostile")
    assert (figure.value, "worse" in figure.unit, verdict(figure)) == (9.0, True, "missed")


def test_an_honest_client_that_is_compared_with_itself_is_no_hostile_input() -> None:
    rows = [beside(side, [10.0] * 100) for side in ("hostile", "good")]
    rows += [beside("hostile", [20.0] * 100, input="itself", control=True), beside("good", [10.0] * 100, input="itself", control=True)]
    found = {figure.name: figure.value for figure in hostile.figures(rows, QUICK)}
    assert (found["honest_p99_ttft_beside_hostile"], found["honest_p99_ttft_beside_honest"]) == (1.0, 2.0)


def test_rejections_count_beside_the_hostile_client_alone() -> None:
    rows = [beside("hostile", [1.0], rejected=2), beside("good", [1.0], rejected=5)]
    figure = next(figure for figure in hostile.figures(rows, QUICK) if figure.name == "honest_rejected_beside_hostile")
    assert figure.value == 2


def test_the_table_has_a_line_for_each_input() -> None:
    rows = [beside(side, [1.0], input=name) for name in ("one", "other") for side in ("hostile", "good")]
    assert len(hostile_beside.table(rows).splitlines()) == 3


@pytest.mark.parametrize("one", [pytest.param(one, id=one.id) for one in INPUTS if len(one.build(0, {})) < 1 << 21])
def test_an_input_is_one_request_with_the_clients_key(one: Any) -> None:
    made = one.build(0, {"authorization": "Bearer key"})
    assert made.startswith((b"POST /", b"\x16"))
    assert made.startswith(b"\x16") or b"authorization: Bearer key\r\n" in made


def test_the_reports_that_are_about_load_are_all_among_the_inputs() -> None:
    assert {"D1", "D2", "R1", "R3", "R4", "L1", "L2", "L3", "L4", "L5"} <= {one.case for one in INPUTS}


def test_with_quick_every_report_but_what_forging_covers_is_still_there() -> None:
    assert {"D1", "D2", "R1", "R3", "L1", "L2", "L3", "L4", "L5"} <= {one.case for one in INPUTS if one.quick}


def test_a_fresh_tenant_is_fresh_with_every_request() -> None:
    build = BY_ID["a fresh tenant for every request"].build
    assert build(1, {}) != build(2, {})


def test_the_honest_request_is_json_that_asks_for_few_tokens() -> None:
    body = json.loads(GOOD(0, {}).partition(b"\r\n\r\n")[2])
    assert body["max_tokens"] <= 8


# --- the other figures --------------------------------------------------------------------------------------------------------------


def compared(id: str, **more: Any) -> Row:
    return {"kind": "compared", "where": "this machine", "id": id, "unlike": [], "wanted": False, "stock_dies": False, **more}


def test_requests_that_stock_dies_of_are_not_compared_but_may_be_unlike() -> None:
    rows = [compared("a"), compared("b", unlike=["status"]), compared("c", stock_dies=True, unlike=["status"]), compared("d", wanted=True)]
    made = {figure.name: figure.value for figure in hostile.figures(rows, QUICK)}
    assert (made["requests_compared"], made["requests_unlike_stock"], made["engine_deaths"]) == (3, 2, 0)


def test_deaths_are_counted_wherever_they_happened() -> None:
    rows = [compared("a"), {"kind": "death", "where": "compared with stock", "input": "a"}, {"kind": "death", "where": "w", "input": "b"}]
    assert next(figure.value for figure in hostile.figures(rows, QUICK) if figure.name == "engine_deaths") == 2


def test_findings_of_fuzzers_are_named() -> None:
    found = {"error": "KeyError", "input": "00", "file": "f"}
    rows = [{"kind": "fuzz", "asked_seconds": 30, "target": t, "executions": 5, "findings": [found] * n} for t, n in (("a", 0), ("b", 1))]
    made = {figure.name: figure for figure in hostile.figures(rows, QUICK)}
    assert (made["fuzz_findings"].value, made["fuzz_minutes"].value) == (1, 1.0)
    assert "b: KeyError" in made["fuzz_findings"].unit


def test_admissions_are_compared_by_their_medians() -> None:
    rows = [{"kind": "admit_turn", "number": n, "encoder": False, "before_ms": 2.0, "now_ms": 3.0 if n else 90.0} for n in range(100)]
    [ratio, before, now] = hostile_before.figures(rows)
    assert (ratio.value, before.value, now.value) == (1.5, 2.0, 3.0)


def test_a_part_without_rows_has_no_figures() -> None:
    assert [figure.name for figure in hostile.figures([], QUICK)] == ["engine_deaths"]
