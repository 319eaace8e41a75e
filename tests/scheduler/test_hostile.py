"""What a client or the engine can send must not affect the others: extreme values, odd reports, routes of unknown text, metrics."""

import dataclasses
import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from alise_contract.names import CONTRACT_VERSION, MAX_HINT_BYTES, NEUTRAL_LEVEL
from alise_contract.v1 import admission_pb2 as pb
from alise_contract.v1 import engine_control_pb2 as engine_pb
from alise_scheduler.admissions import Admitted, ClassRule
from alise_scheduler.core.admit import AdmitLimits, Rejected
from alise_scheduler.core.exec_time import CostModel, observe
from alise_scheduler.core.lengths import Lengths
from alise_scheduler.core.reports import EngineSnapshot, EngineUpdate, Finished, FinishReason, Phase, Step
from alise_scheduler.engine import convert
from alise_scheduler.metrics import BATCH
from alise_scheduler.predictor.features.request import extract
from alise_scheduler.predictor.features.row import ModelInput
from alise_scheduler.predictor.features.text import TEXT_NAMES, text_numbers
from alise_scheduler.predictor.interface import Observation
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.rpc.convert import to_ask
from alise_scheduler.state import State
from tests.scheduler.builders import make_ask, make_request, make_state, opened
from tests.scheduler.running_dispatcher import running

# --- routes ---------------------------------------------------------------------------------------------------------------------------


def asked(endpoint: int, **fields: Any) -> Any:
    values = {"prompt": "Write a story", "prompt_chars": 13, **fields}
    return to_ask(pb.AdmitRequest(contract_version=CONTRACT_VERSION, job_id="x", endpoint=endpoint, **values))  # type: ignore[arg-type]


def test_messages_are_looked_at_as_chats_are() -> None:
    chat, messages = (extract(asked(number).question, b"s") for number in (pb.ENDPOINT_CHAT_COMPLETIONS, pb.ENDPOINT_MESSAGES))
    assert chat.text == messages.text
    assert np.array_equal(chat.numbers, messages.numbers, equal_nan=True)


@pytest.mark.parametrize("endpoint", [pb.ENDPOINT_OTHER, 77, -3])
@pytest.mark.parametrize(
    ("of_class", "weight"), [pytest.param(16.0, 1.0, id="a heavy class"), pytest.param(0.25, 0.25, id="a light class keeps its weight")]
)
def test_a_route_of_unknown_text_has_the_neutral_level_and_weight(endpoint: int, of_class: float, weight: float) -> None:
    state = opened(make_state(classes={"mine": ClassRule(of_class)}))
    answer = state.admit(asked(endpoint, objective="mine", max_tokens=1, tenant="me"), 1.0)
    assert isinstance(answer, Admitted)
    assert answer.level == NEUTRAL_LEVEL
    assert (state.book.jobs["x"].weight, state.book.jobs["x"].tenant) == (weight, "me")


def test_a_route_of_unknown_text_counts_for_predicted_waits() -> None:
    state = opened(make_state(), max_num_seqs=1)
    state.admit(asked(pb.ENDPOINT_OTHER), 1.0)
    state.decide(1.0)
    assert isinstance(state.admit(make_ask("another", neutral=True, slo_ttft_ms=1), 1.0), Rejected)


def test_a_route_of_unknown_text_teaches_nothing() -> None:
    predictor = LearnedPredictor()
    state = opened(make_state(predictor=predictor))
    state.admit(asked(pb.ENDPOINT_OTHER), 1.0)
    state.update(EngineUpdate(requests=(make_request("x", Phase.RUNNING),)), 2.0)
    state.update(EngineUpdate(finished=(Finished("r-x", "x", FinishReason.STOP, generated_tokens=7),)), 3.0)
    assert len(predictor.recent) == 0


# --- L2: extreme values ---------------------------------------------------------------------------------------------------------------

UINT32, UINT64 = st.sampled_from([0, 1, 2, 1000, 2**31, 2**32 - 1]), st.sampled_from([0, 1, 2**31, 2**62, 2**63, 2**64 - 1])


TEXT = st.one_of(st.text(max_size=80), st.sampled_from(["", "\n" * 20_000, "‘" * 20_000, "\x00", "\U0010ffff" * 300, "a" * 300_000]))


MESSAGES = st.builds(
    lambda temperature, **fields: pb.AdmitRequest(**fields, **({} if temperature is None else {"temperature": temperature})),
    temperature=st.one_of(st.none(), st.floats(width=32)),
    contract_version=st.just(CONTRACT_VERSION), job_id=st.text(min_size=1, max_size=64), endpoint=st.integers(-(2**31), 2**31 - 1),
    model=TEXT, prompt=TEXT, prompt_chars=UINT64, turns=UINT32, max_tokens=UINT32, n=UINT32, structured=st.booleans(), tenant=TEXT,
    objective=TEXT, slo_ttft_ms=UINT32, conversation=TEXT, conversation_now=TEXT, conversation_previous=TEXT,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MESSAGES, st.booleans())
def test_l2_any_message_is_admitted_or_rejected_and_leaves_a_sound_load(message: pb.AdmitRequest, session: bool) -> None:
    state = opened(make_state()) if session else make_state()
    answer = state.admit(to_ask(message), 1.0)
    assert isinstance(answer, Admitted)
    assert len(answer.hint) <= MAX_HINT_BYTES
    assert math.isfinite(state.load.backlog_seconds())
    assert math.isfinite(state.decide(2.0).load.backlog_seconds())
    assert state.metrics.registry.get_sample_value("alise_scheduler_background_failures_total", {"task": "predictor"}) == 0


def test_a_prompt_of_64_mib_is_looked_at_as_its_beginning() -> None:
    message = pb.AdmitRequest(contract_version=CONTRACT_VERSION, job_id="x", prompt="x" * (64 << 20), prompt_chars=64 << 20)
    assert isinstance(opened(make_state()).admit(to_ask(message), 1.0), Admitted)


def test_a_prompt_that_does_not_fit_is_no_reason_to_turn_others_away() -> None:
    """Counted by its length it would be hours of work, until the engine has refused it."""
    state = opened(make_state(limits=AdmitLimits(max_wait_seconds=30.0)), max_num_seqs=1, max_model_len=4096)
    state.admit(asked(1, prompt_chars=2**40), 1.0)
    assert isinstance(state.admit(make_ask("small"), 1.0), Admitted)


def test_two_tenants_of_endless_names_stay_two() -> None:
    one, two = (asked(1, tenant="t" * 100_000 + end).question.tenant for end in "ab")
    assert one != two
    assert len(one) <= 255


class Broken:
    """A predictor that fails at whatever it is asked."""

    def predict(self, request: ModelInput | None, max_tokens: int, remember: bool = True) -> Lengths:
        raise IndexError("a bug")

    def learn(self, request: ModelInput, observation: Observation) -> None:
        raise IndexError("a bug")

    def forget(self, request: ModelInput | None) -> None:
        """Has nothing to forget."""


def test_a_predictor_that_fails_costs_the_prediction_and_no_request() -> None:
    state = opened(make_state(predictor=Broken()))
    assert isinstance(state.admit(make_ask("a"), 1.0), Admitted)
    state.update(EngineUpdate(requests=(make_request("a", Phase.RUNNING), make_request("around"))), 2.0)
    assert state.metrics.registry.get_sample_value("alise_scheduler_background_failures_total", {"task": "predictor"}) == 2


OLD_LIST = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)


OLD_QUOTED = re.compile(r"[\"“'‘]([^\"”'’]{2,})[\"”'’]")


@settings(max_examples=300)
@given(st.text(alphabet="\"“”'‘’ab- *\n\r\t1.)", max_size=40))
def test_the_quick_look_at_quotes_and_lists_finds_what_the_slow_patterns_found(text: str) -> None:
    quoted, numbers = OLD_QUOTED.search(text), dict(zip(TEXT_NAMES, text_numbers(text), strict=True))
    assert numbers["quoted_chars"] == (len(quoted[1]) if quoted else 0)
    assert numbers["list_marks"] == len(OLD_LIST.findall(text))


# --- L3: what the engine reports --------------------------------------------------------------------------------------------------------

ROWS = st.builds(
    engine_pb.EngineRequest,
    request_id=st.sampled_from(["r0", "r1", "r" * 100_000]), job_id=st.sampled_from(["", "a", "b" * 64, "c" * 1000]),
    phase=st.integers(-5, 9), prompt_tokens=UINT32, generated_tokens=UINT32, device_tokens=UINT32, host_tokens=UINT32, host_bytes=UINT64,
    max_tokens=UINT32, preemptions=UINT32, priority=st.sampled_from([0, -(2**63), 2**63 - 1]), age_ms=UINT64, phase_ms=UINT64,
    hint=st.sampled_from([b"", b"x" * 100, b"x" * (1 << 20)]),
)  # fmt: skip


ENDS = st.builds(
    engine_pb.Finished, request_id=st.sampled_from(["r0", "r1", "r9"]), job_id=st.sampled_from(["", "a"]), reason=st.integers(-1, 9),
    prompt_tokens=UINT32, generated_tokens=UINT32, age_ms=UINT64, ttft_ms=UINT64,
)  # fmt: skip


STEPS = st.builds(engine_pb.Step, duration_us=UINT32, prefill_tokens=UINT32, decode_requests=UINT32, context_tokens=UINT64)


SHAPES = st.builds(
    engine_pb.EngineShape, max_num_seqs=UINT32, max_num_batched_tokens=UINT32, max_model_len=UINT32, block_size=UINT32,
    num_device_blocks=UINT32, block_bytes=UINT64, host_limit_bytes=UINT64,
)  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SHAPES, st.lists(ROWS, max_size=4), st.lists(ROWS, max_size=4), st.lists(ENDS, max_size=3), st.lists(STEPS, max_size=5))
def test_l3_whatever_the_engine_reports_a_plan_can_be_sent(
    shape: engine_pb.EngineShape, first: list[Any], then: list[Any], ends: list[Any], steps: list[Any]
) -> None:
    state = make_state()
    snapshot = convert.from_response(
        engine_pb.WatchResponse(snapshot=engine_pb.Snapshot(boot_id="b", session_id="s", engine=shape, requests=first))
    )
    update = convert.from_response(engine_pb.WatchResponse(update=engine_pb.Update(requests=then, finished=ends, steps=steps)))
    assert isinstance(snapshot, EngineSnapshot)
    assert isinstance(update, EngineUpdate)
    state.snapshot(snapshot, 1.0)
    state.update(update, 2.0)
    decision = state.decide(3.0)
    assert convert.to_apply("s", 1, decision.plan).SerializeToString()
    assert isinstance(state.admit(make_ask("next"), 4.0), Admitted)


def test_l3_a_hint_over_the_limit_does_not_come_in() -> None:
    assert convert.from_request(engine_pb.EngineRequest(request_id="r", job_id="a", hint=b"x" * (MAX_HINT_BYTES + 1))).hint == b""


@example([Step(5e-324, 0, 9950, 0)])
@given(st.lists(st.builds(Step, st.floats(), *[st.one_of(st.integers(-(2**63), 2**64), st.just(0))] * 3), max_size=20))
def test_steps_of_impossible_numbers_leave_a_usable_model(steps: list[Step]) -> None:
    model = observe(CostModel(), steps)
    assert 0 < model.decode_step_seconds() < math.inf


# --- silent ends ----------------------------------------------------------------------------------------------------------------------


async def test_a_plan_that_cannot_be_sent_is_not_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(make_state()) as bench:
        bench.engine.failures = [ValueError("a plan that no message holds")]  # type: ignore[list-item]
        bench.engine.boot()
        await bench.clock.advance(1.0)
        assert bench.plans()
        assert bench.metric("alise_scheduler_background_failures_total", task="apply") == 1


# --- L6: metrics ----------------------------------------------------------------------------------------------------------------------


MEASURED = tuple(one.name for one in dataclasses.fields(Finished) if one.type in (int, float))


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of request that a metric may be about."""

    reason: FinishReason = FinishReason.STOP
    is_preempted: bool = True
    objective: str = ""


def one_request(state: State, number: int, size: int, kind: Kind) -> None:
    """A request whose every number is of this size: those that the engine reports at its end, and the time of its admission."""
    job = f"j{number}"
    state.admit(make_ask(job, objective=kind.objective), 1.0)
    state.update(EngineUpdate(requests=(make_request(job, Phase.RUNNING, generated_tokens=size),)), 2.0)
    measured = dict.fromkeys(MEASURED, size) | ({} if kind.is_preempted else {"preemptions": 0})
    done = Finished(f"r-{job}", job, kind.reason, **measured)
    state.update(EngineUpdate(finished=(done,)), 3.0)
    state.metrics.admit_seconds.observe(size / 1000)


def scraped(state: State) -> dict[Any, float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in state.metrics.registry.collect()
        if not family.name.startswith(("process_", "python_"))
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def scrapes_of(first_size: int, kind: Kind) -> list[dict[Any, float]]:
    """Returns a scrape after each of 64 requests, each a little larger than the one before it."""
    state, scrapes = opened(make_state(classes={"gold": ClassRule()})), []
    for number in range(64):
        one_request(state, number, first_size + number, kind)
        scrapes.append(scraped(state))
    return scrapes


@pytest.mark.parametrize(
    "kind",
    [
        *(pytest.param(Kind(reason), id=f"that end by {reason.value}") for reason in FinishReason),
        pytest.param(Kind(is_preempted=False), id="that were never preempted"),
        pytest.param(Kind(objective="gold"), id="of a class"),
        pytest.param(Kind(FinishReason.ABORT, is_preempted=False, objective="gold"), id="of a class, neither preempted nor ended"),
    ],
)
def test_l6_between_two_scrapes_no_metric_shows_what_one_request_was(kind: Kind) -> None:
    small, large = scrapes_of(10, kind), scrapes_of(500, kind)
    # What depends on how large the requests were, found by what differs, so that a new metric is among them.
    telling = {key[0] for key in small[0] if any(one[key] != other[key] for one, other in zip(small, large, strict=True))}
    known = {"alise_scheduler_wait_seconds_sum"}
    if kind.reason is FinishReason.STOP:
        known |= {"alise_scheduler_answer_tokens_total", "alise_scheduler_neutral_seconds"}
    assert known <= telling
    for name in telling:
        own = [{key: value for key, value in scrape.items() if key[0] == name} for scrape in small]
        changed = [number for number in range(1, 64) if own[number] != own[number - 1]]
        at_once = f"{name} shows what a single request was: publish it {BATCH} requests at a time, as BatchedHistogram and answered() do"
        assert all(later - sooner >= BATCH for sooner, later in itertools.pairwise([-1, *changed])), at_once


def test_l6_what_is_published_late_is_all_there() -> None:
    answers = scrapes_of(10, Kind())[-1]
    assert answers[("alise_scheduler_answer_tokens_total", ("kind", "real"))] == sum(range(10, 74))


@pytest.mark.parametrize(
    ("objective", "label"),
    [
        pytest.param("gold", "gold", id="a class"),
        pytest.param("", "default", id="none"),
        pytest.param("x" * 50, "default", id="an unknown one"),
    ],
)
def test_admissions_are_counted_by_class_and_classes_are_bounded(objective: str, label: str) -> None:
    metrics = make_state(classes={"gold": ClassRule()}).metrics
    metrics.count_admit("admitted", objective)
    assert metrics.registry.get_sample_value("alise_scheduler_admits_total", {"outcome": "admitted", "class": label}) == 1
