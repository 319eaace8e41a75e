"""What clients may ask for, preempted: the answer is the undisturbed one in all its parts."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from alise_engine.serve import tiny_model
from alise_engine.wire.terms import PHASE_OFFLOADED, PHASE_PREEMPTED
from tests.engine.harness import Engine, EngineOptions

pytestmark = pytest.mark.engine

STORY = [256, *b"tell me a long story about the sea and the ships on it"]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "ages": {"type": "array", "items": {"type": "integer"}, "maxItems": 4}},
    "required": ["name", "ages"],
    "additionalProperties": False,
}
PLAIN = EngineOptions(max_num_seqs=4)


@pytest.fixture(scope="module", params=[PLAIN, replace(PLAIN, asynchronous=True)], ids=["synchronous", "asynchronous"])
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tiny_model.write_model(tmp_path_factory.mktemp("tiny")), request.param)
    yield engine
    engine.close()


@pytest.fixture
def engine(started: Engine) -> Engine:
    return started.fresh()


def twice(engine: Engine, tokens: int, **sampling: Any) -> tuple[dict[int, Any], dict[int, Any]]:
    """The completions of one request, undisturbed and preempted every seven steps."""
    alone = engine.ask(STORY, tokens, **sampling)
    engine.finish(alone)
    name = engine.ask(STORY, tokens, job="job", **sampling)
    for _ in range(200):
        engine.step(7)
        if engine.answers[name].finished:
            break
        engine.crowd.displace("job")
        engine.step(2)
        engine.crowd.readmit("job")
    assert engine.answers[name].finished
    assert engine.counters().preemptions_rank >= 3
    return engine.answers[alone].completions, engine.answers[name].completions


def structured() -> Any:
    from vllm.sampling_params import StructuredOutputsParams

    return StructuredOutputsParams(json=json.dumps(SCHEMA))


def test_structured_output_follows_its_schema_across_preemptions(engine: Engine) -> None:
    alone, preempted = twice(engine, 120, structured_outputs=structured(), ignore_eos=False)
    assert preempted[0].text == alone[0].text
    assert set(json.loads(preempted[0].text)) == {"name", "ages"}
    assert engine.counters().recomputes == 0


def test_every_one_of_several_samples_is_its_own_request_and_all_are_exact(engine: Engine) -> None:
    alone, preempted = twice(engine, 60, n=3, temperature=1.0, seed=5)
    texts = {index: completion.text for index, completion in preempted.items()}
    assert texts == {index: completion.text for index, completion in alone.items()}
    assert len(set(texts.values())) == 3
    counters = engine.counters()
    assert counters.restores >= 9
    assert counters.recomputes == 0


def test_log_probabilities_are_those_of_the_undisturbed_answer(engine: Engine) -> None:
    alone, preempted = twice(engine, 60, logprobs=3)
    for expected, said in zip(alone[0].logprobs, preempted[0].logprobs, strict=True):
        assert said.keys() == expected.keys()
        assert {token: entry.logprob for token, entry in said.items()} == pytest.approx(
            {token: entry.logprob for token, entry in expected.items()}, abs=1e-4
        )


def test_a_stop_string_ends_a_preempted_answer_where_it_ends_the_undisturbed_one(engine: Engine) -> None:
    name = engine.ask(STORY, 120)
    engine.finish(name)
    text = engine.answers[name].completions[0].text
    stop = next(text[at : at + 4] for at in range(60, 110) if text.find(text[at : at + 4]) == at)
    alone, preempted = twice(engine, 120, stop=[stop])
    assert preempted[0].text == alone[0].text == text[: text.find(stop)]
    assert preempted[0].stop_reason == stop


def test_prompt_log_probabilities_are_recomputed_and_the_answer_is_the_same(engine: Engine) -> None:
    alone, preempted = twice(engine, 40, prompt_logprobs=1)
    assert preempted[0].token_ids == alone[0].token_ids
    assert engine.counters().restores == 0


def test_penalties_count_what_was_said_before_the_preemption(engine: Engine) -> None:
    alone, preempted = twice(engine, 60, presence_penalty=1.5, frequency_penalty=0.5)
    assert preempted[0].token_ids == alone[0].token_ids


# --- pause ----------------------------------------------------------------------------------------------------------------------------
def phase(engine: Engine) -> str:
    (row,) = [row for row in engine.snapshot().requests if row.job_id == "job"]
    return row.phase


def undisturbed(engine: Engine, tokens: int) -> list[int]:
    name = engine.ask(STORY, tokens)
    engine.finish(name)
    return list(engine.tokens(name))


def park(engine: Engine) -> str:
    name = engine.ask(STORY, 80, job="job")
    engine.run_until(engine.grown(name, 20))
    engine.crowd.park("job")
    return name


def test_a_parked_request_waits_out_a_pause_on_the_host_and_goes_on_exactly(engine: Engine) -> None:
    expected, name = undisturbed(engine, 80), park(engine)
    engine.core.pause_scheduler("keep", clear_cache=False)
    engine.crowd.readmit("job")
    engine.step(5)
    assert phase(engine) == PHASE_OFFLOADED
    engine.core.resume_scheduler()
    engine.finish(name)
    assert (engine.counters().exact_resumes, engine.tokens(name)) == (1, expected)


def test_a_pause_that_clears_the_caches_drops_the_copies_too(engine: Engine) -> None:
    expected, name = undisturbed(engine, 80), park(engine)
    engine.core.pause_scheduler("keep", clear_cache=True)
    assert phase(engine) == PHASE_PREEMPTED
    engine.core.resume_scheduler()
    engine.crowd.readmit("job")
    engine.finish(name)
    counters = engine.counters()
    assert (counters.restores, counters.recomputes, engine.pool.used_bytes) == (0, 1, 0)
    assert engine.tokens(name) == expected


def test_a_pause_that_clears_the_caches_while_requests_run_recomputes_them(engine: Engine) -> None:
    expected = undisturbed(engine, 80)
    name = engine.ask(STORY, 80, job="job")
    engine.run_until(engine.grown(name, 20))
    engine.core.pause_scheduler("keep", clear_cache=True)
    engine.step(2)
    engine.core.resume_scheduler()
    engine.finish(name)
    assert engine.tokens(name) == expected
    assert (engine.counters().saves, engine.counters().restores) == (0, 0)


def test_a_pause_that_aborts_leaves_nothing_behind(engine: Engine) -> None:
    free = engine.counters().free_device_blocks
    park(engine)
    engine.core.pause_scheduler("abort")
    engine.step(3)
    engine.core.resume_scheduler()
    engine.step(2)
    assert (engine.pool.used_bytes, engine.counters().free_device_blocks) == (0, free)
    assert not engine.scheduler.has_requests()


def test_a_load_that_fails_is_recomputed(engine: Engine) -> None:
    expected, name = undisturbed(engine, 80), park(engine)
    engine.pool.clear()
    engine.crowd.readmit("job")
    engine.finish(name)
    assert engine.tokens(name) == expected
