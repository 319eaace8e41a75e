"""The prior: its lines, the regression on them, its use before the first head and beside one."""

import asyncio
import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.predictor.features.conversation import Conversations, PastTurns, expected_here
from alise_scheduler.predictor.features.row import EXPECTED, PRIOR_AT
from alise_scheduler.predictor.interface import Observation
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.predictor.models.calibration import middle
from alise_scheduler.predictor.models.encoder import MODEL_FILE, VOCABULARY_FILE
from alise_scheduler.predictor.models.prior import from_bytes, quantiles
from alise_scheduler.predictor.served_head import serve_head
from alise_scheduler.predictor.start import Where, start
from alise_scheduler.predictor.storage.writer import Archive
from alise_scheduler.predictor.training.background import BackgroundError
from alise_scheduler.predictor.training.fit import train
from alise_scheduler.predictor.training.loop import Learner
from alise_scheduler.predictor.training.prior_fit import PRIOR_FILE, fingerprint, fit, stored_prior
from alise_scheduler.predictor.training.prior_lines import Line, own_lines, read_lines
from alise_scheduler.predictor.training.trial import FIRST_TRAINING, MIN_BETWEEN
from tests.scheduler.hash_encoder import HashEncoder
from tests.scheduler.predictor_builders import make_features, make_history, make_task

pytestmark = pytest.mark.process

PRIOR = fit(own_lines(), None)
KINDS = ("Is nine odd? Yes or no.", "What is a comet?", "Write an essay of 800 words about the history of whaling.")


def knowing() -> LearnedPredictor:
    predictor = LearnedPredictor()
    predictor.prior = PRIOR
    return predictor


def expected(prompt: str) -> float:
    return PRIOR.expect(make_features(prompt).numbers, None)


def median(predictor: LearnedPredictor, prompt: str) -> float:
    return predictor.predict(make_features(prompt), 0).median


def test_the_packages_lines_are_prompts_of_all_lengths_and_none_comes_twice() -> None:
    lines = own_lines()
    assert len(lines) > 500
    assert len({line.text for line in lines}) == len(lines)
    assert min(line.tokens for line in lines) < 5 < 600 < max(line.tokens for line in lines) < 2000


@given(text=st.text(st.characters(exclude_characters="\t", exclude_categories=["Cc", "Cs", "Zl", "Zp"]) | st.just("\n"), min_size=1))
def test_a_line_holds_any_prompt(text: str) -> None:
    line = text.replace("\\", "\\\\").replace("\n", "\\n")
    assert read_lines(f"# about\n7\t{line}\n") == (Line(text, 7),)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("12 no tab", id="no tab"),
        pytest.param("many\tWhat is snow?", id="no number"),
        pytest.param("0\tWhat is snow?", id="no tokens"),
        pytest.param("12\t", id="no prompt"),
    ],
)
def test_a_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 should be"):
        read_lines(f"5\tgood\n{line}\n")


def test_kinds_of_prompts_differ_by_their_words_alone() -> None:
    short, some, long = (math.exp(expected(prompt)) for prompt in KINDS)
    assert 3 * short < some < long / 2


def test_an_embedding_says_more() -> None:
    encoder = HashEncoder()
    prior = fit((Line("sing of alpha", 10), Line("sing of gamma", 1000)), encoder)
    short, long = (make_features(prompt) for prompt in ("sing of alpha", "sing of gamma"))
    apart = prior.expect(long.numbers, long.embedding) - prior.expect(short.numbers, short.embedding)
    assert apart > 1.0 > abs(prior.expect(long.numbers, None) - prior.expect(short.numbers, None))


def test_nothing_is_expected_of_a_prompt_without_text() -> None:
    assert math.isnan(expected(""))
    assert knowing().predict(make_features(""), 0) == LearnedPredictor().predict(make_features(""), 0)


@given(text=st.text(min_size=1, max_size=300))
def test_whatever_is_written_a_length_is_expected(text: str) -> None:
    assert 0.0 < expected(text) < math.log(5000)


def test_a_prior_comes_back_from_its_bytes() -> None:
    prior = fit(own_lines()[:50], HashEncoder())
    again = from_bytes(prior.to_bytes())
    detail = make_features(KINDS[1])
    for embedding in (None, detail.embedding):
        assert again.expect(detail.numbers, embedding) == pytest.approx(prior.expect(detail.numbers, embedding), abs=1e-5)


@pytest.mark.parametrize(
    "data", [pytest.param(b"", id="none"), pytest.param(b"something else", id="foreign"), pytest.param(b"PK\x03\x04 cut", id="cut")]
)
def test_bytes_that_hold_no_prior_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        from_bytes(data)


def test_landmarks_on_no_grid_are_refused() -> None:
    with np.load(io.BytesIO(PRIOR.to_bytes())) as held:
        parts = dict(held)
    out = io.BytesIO()
    np.savez(out, **(parts | {"alone.landmarks": parts["alone.landmarks"].astype(np.float32)}))
    with pytest.raises(ValueError, match="do not fit"):
        from_bytes(out.getvalue())


def made_folder(folder: Path) -> Path:
    """An encoder's folder, as far as its prior goes, with a prior that was fitted for it."""
    for name in (MODEL_FILE, VOCABULARY_FILE):
        (folder / name).write_bytes(name.encode())
    (folder / PRIOR_FILE).write_bytes(fit(own_lines()[:50], HashEncoder()).to_bytes(fingerprint(folder)))
    return folder


def test_a_prior_that_was_made_for_this_encoder_is_taken(tmp_path: Path) -> None:
    data = stored_prior(made_folder(tmp_path))
    assert data is not None
    assert from_bytes(data).worded is not None


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param(MODEL_FILE, b"other weights", id="of another encoder"),
        pytest.param(VOCABULARY_FILE, b"other words", id="of another vocabulary"),
        pytest.param(PRIOR_FILE, b"something else", id="not a prior"),
        pytest.param(PRIOR_FILE, PRIOR.to_bytes("another code"), id="of another code"),
    ],
)
def test_a_prior_that_was_made_for_something_else_is_left(tmp_path: Path, name: str, data: bytes) -> None:
    folder = made_folder(tmp_path)
    (folder / name).write_bytes(data)
    assert stored_prior(folder) is None


def test_a_folder_without_a_prior_has_none(tmp_path: Path) -> None:
    assert stored_prior(tmp_path) is None


def test_fewer_landmarks_expect_about_the_same() -> None:
    lines, encoder = own_lines()[:400], HashEncoder()
    whole, part = (fit(lines, encoder, landmarks) for landmarks in (400, 300))
    details = [make_features(line.text) for line in lines[::10]]
    expected_lengths = [[prior.expect(detail.numbers, detail.embedding) for detail in details] for prior in (whole, part)]
    assert np.corrcoef(expected_lengths)[0, 1] > 0.8


def test_few_landmarks_know_the_words_alone_as_well_as_all_of_them_would() -> None:
    lines = own_lines()[::20]
    expected_lengths = [expected(line.text) for line in lines]
    assert np.corrcoef(expected_lengths, np.log([line.tokens for line in lines]))[0, 1] > 0.7


def test_quantiles_ascend_around_what_is_expected() -> None:
    made = quantiles(4.0)
    assert (np.diff(made) > 0).all()
    assert middle(made) == pytest.approx(4.0)


def test_before_the_first_training_kinds_of_prompts_differ() -> None:
    predictor = knowing()
    short, some, long = (median(predictor, prompt) for prompt in KINDS)
    assert short < some / 2 < long / 4


@pytest.mark.parametrize("factor", [pytest.param(3.0, id="longer"), pytest.param(1 / 3, id="shorter")])
def test_a_models_own_lengths_are_followed_within_tens_of_answers(factor: float) -> None:
    predictor = knowing()
    rng = np.random.default_rng(0)
    before = median(predictor, "What is a glacier?")
    for number in range(60):
        prompt = f"What is number {number}?"
        typical = math.exp(expected(prompt) + 0.4 * rng.standard_normal())
        predictor.learn(make_features(prompt), Observation(max(1, round(factor * typical)), True))
    assert factor / 1.6 < median(predictor, "What is a glacier?") / before < factor * 1.6


def test_the_first_head_does_not_inherit_how_far_off_the_prior_was() -> None:
    predictor = knowing()
    rng = np.random.default_rng(0)
    for _ in range(FIRST_TRAINING):
        prompt, tokens = make_task(rng)
        predictor.learn(make_features(prompt), Observation(5 * tokens, True))
    history = predictor.newest()
    predictor.install(serve_head(train(history, 1), history))
    assert median(predictor, "Write an essay about trains") == pytest.approx(5 * 420, rel=0.4)


def test_a_conversation_that_is_answered_at_length_is_expected_to_go_on_so() -> None:
    held = Conversations()
    held.add(0, 1, 6.0, None, prior=4.0)
    held.add(1, 2, 6.0, None, prior=4.0)
    assert 4.5 < expected_here(4.0, held.find(2)) < 6.0
    assert expected_here(4.0, None) == 4.0


@given(prior=st.floats(0, 8), prior_residuals=st.lists(st.floats(-3, 3), max_size=16))
def test_a_conversation_moves_the_expectation_no_further_than_it_was_off(prior: float, prior_residuals: list[float]) -> None:
    moved = expected_here(prior, PastTurns(1, prior_residuals=tuple(prior_residuals))) - prior
    assert min([0.0, *prior_residuals]) - 1e-9 <= moved <= max([0.0, *prior_residuals]) + 1e-9


def test_what_was_expected_is_kept_with_the_sample() -> None:
    kept: list[float] = []
    predictor = LearnedPredictor(lambda sample: kept.append(float(sample.numbers[PRIOR_AT])))
    predictor.prior = PRIOR
    predictor.learn(make_features(KINDS[1], embed=False), Observation(50, True))
    assert kept == [pytest.approx(expected(KINDS[1]), abs=1e-4)]


def test_where_nothing_is_expected_a_head_takes_the_mean() -> None:
    history = make_history(200)
    columns = slice(PRIOR_AT, PRIOR_AT + len(EXPECTED))
    history.numbers[:, columns] = np.linspace(2.0, 6.0, 200, dtype=np.float32)[:, None]
    head = train(history, 1)
    without, mean = history.numbers[:1].copy(), history.numbers[:1].copy()
    without[:, columns], mean[:, columns] = np.nan, head.scaling.mean[columns]
    vectors = history.vectors[:1]
    for unknown, average in zip(head.expect(without, vectors, vectors), head.expect(mean, vectors, vectors), strict=True):
        assert unknown.tolist() == average.tolist()


async def test_the_learner_puts_a_prior_to_use() -> None:
    predictor = LearnedPredictor()

    async def know() -> bytes:
        return PRIOR.to_bytes()

    await Learner(predictor, Archive(None, None), know=know).prepare()
    assert predictor.prior is not None


async def test_without_a_prior_things_go_on() -> None:
    predictor = LearnedPredictor()

    async def know() -> bytes:
        raise BackgroundError("prior ended with status 1: no memory")

    await Learner(predictor, Archive(None, None), know=know).prepare()
    assert predictor.prior is None
    assert predictor.predict(make_features(), 0).median > 1


async def test_nothing_waits_for_a_prior_that_takes_long() -> None:
    turned = asyncio.Event()

    async def know() -> bytes:
        await asyncio.sleep(60)
        return b""

    running = asyncio.create_task(Learner(LearnedPredictor(), Archive(None, None), on_turn=turned.set, know=know).run())
    async with asyncio.timeout(10):
        await turned.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def finished(count: int, predictor: LearnedPredictor) -> None:
    """This number of requests ends."""
    rng = np.random.default_rng(predictor.recent.added)
    for _ in range(count):
        prompt, tokens = make_task(rng)
        predictor.learn(make_features(prompt), Observation(tokens, True))


def test_a_scheduler_that_starts_with_a_history_and_no_head_trains_after_further_requests(tmp_path: Path) -> None:
    first = start(Where(str(tmp_path)))
    finished(FIRST_TRAINING, first.predictor)
    first.archive.close()
    second = start(Where(str(tmp_path)))
    second.archive.close()
    predictor = second.predictor
    assert (predictor.recent.added, predictor.version) == (FIRST_TRAINING, 0)
    predictor.prior = PRIOR
    finished(MIN_BETWEEN - 1, predictor)
    assert not predictor.wants_training()
    finished(1, predictor)
    assert predictor.wants_training()


def test_without_a_prior_it_trains_at_once_because_nothing_serves_meanwhile() -> None:
    predictor = LearnedPredictor()
    finished(FIRST_TRAINING, predictor)
    predictor.put_off()
    assert predictor.wants_training()


async def test_no_head_is_trained_while_the_prior_is_fitted() -> None:
    predictor, trained, fitted = LearnedPredictor(), [], asyncio.Event()
    finished(FIRST_TRAINING, predictor)

    async def know() -> bytes:
        await fitted.wait()
        return PRIOR.to_bytes()

    async def trains(history: bytes, version: int) -> bytes:
        trained.append(version)
        raise BackgroundError("that it began is enough")

    learner = Learner(predictor, Archive(None, None), train=trains, know=know)
    preparing = asyncio.create_task(learner.prepare())
    assert not await learner.turn()
    fitted.set()
    await preparing
    assert await learner.turn()
    assert trained == [1]


def test_the_process_answers_with_a_prior() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alise_scheduler.predictor.training.prior_fit", ""], capture_output=True, timeout=120, check=True
    )
    assert from_bytes(done.stdout).worded is None
