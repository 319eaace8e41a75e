"""Hundreds of preemptions per engine, over random plans: no answer differs from the one that the same engine gives undisturbed.

fp32 and the raw codec, because only there is exact what it says; see `fuzz.py` for what is asked. A longer run of the same is
`make bench-soak`.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alise_engine.serve import tiny_model
from tests.engine.fuzz import CORRUPT, EVERYTHING, EXACT, OPTIONS, Mix, Outcome, Question, Round, questions
from tests.engine.harness import Engine

pytestmark = pytest.mark.engine

EXACT_SEEDS = range(5)
FUZZ_SEEDS = range(100, 104)
TURNS = 100


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=list(OPTIONS), ids=list(OPTIONS))
def engine(request: pytest.FixtureRequest, model: Path) -> Iterator[Engine]:
    engine = Engine(model, OPTIONS[request.param])
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def asked(engine: Engine) -> list[Question]:
    return questions(engine, seed=1, count=12)


def run(engine: Engine, asked: list[Question], seeds: range, mix: Mix) -> Counter[str]:
    """The sums of some rounds. Fails with the seed of the first that is not clean."""
    sums: Counter[str] = Counter()
    for seed in seeds:
        outcome = Round(engine, asked, seed, mix).run(TURNS)
        assert outcome.is_clean(), f"seed {seed}: {outcome}"
        sums.update(outcome.counts())
    return sums


def test_hundreds_of_preemptions_leave_every_answer_as_it_was_and_cost_one_token_each(engine: Engine, asked: list[Question]) -> None:
    sums = run(engine, asked, EXACT_SEEDS, EXACT)
    assert max(len(question.prompt) for question in asked) == 1_500
    assert sums["preemptions"] > 300
    # A store that gave nothing back would pass by recomputing. A few are preempted with their last token in flight, or early in a prompt.
    assert sums["exact_resumes"] >= 0.95 * sums["preemptions"]
    assert sums["restores"] >= 0.9 * sums["preemptions"]


def test_aborts_dropped_copies_and_full_memory_leave_every_other_answer_as_it_was(engine: Engine, asked: list[Question]) -> None:
    sums = run(engine, asked, FUZZ_SEEDS, EVERYTHING)
    assert min(sums["aborted"], sums["preemptions_memory"], sums["recomputes"], sums["prefetches_revoked"]) > 0


def test_one_corrupted_number_in_the_host_store_does_not_pass(engine: Engine, asked: list[Question]) -> None:
    # Now and then one number changes no answer, because the same token stays the likeliest; then the next seed counts.
    rounds = (Round(engine, asked, seed, CORRUPT).run(TURNS) for seed in range(7, 10))
    outcome = next((outcome for outcome in rounds if outcome.diverged), None)
    assert outcome is not None
    assert (outcome.stuck, outcome.leaked_blocks, outcome.leaked_bytes) == (0, 0, 0)


def test_the_same_plan_replayed_gives_the_same_schedule(engine: Engine, asked: list[Question], monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[dict[str, int]] = []
    schedule = engine.scheduler.schedule

    def recorded(*args: Any, **kwargs: Any) -> Any:
        output = schedule(*args, **kwargs)
        steps.append({request_id.partition("-")[0]: tokens for request_id, tokens in output.num_scheduled_tokens.items()})
        return output

    monkeypatch.setattr(engine.scheduler, "schedule", recorded)
    replays: list[tuple[Outcome, list[dict[str, int]]]] = []
    for _ in range(2):
        engine.forget_names()
        outcome = Round(engine, asked, seed=11, mix=EVERYTHING).run(TURNS)
        replays.append((outcome, steps.copy()))
        steps.clear()
    assert replays[0] == replays[1]
    assert replays[0][0].preemptions > 0
