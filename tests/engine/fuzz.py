"""Plans, arrivals and aborts at random, the same for the same seed, on a real engine. Nothing of it may show in an answer.

A `Question` is a prompt with the answer that the engine gives it alone. Greedy answers of a model with random weights come close to a tie
now and then, and there the batch around a request decides, preempted or not (matrix products of other shapes round otherwise); questions
with a near tie in them are not asked, so that a difference means that KV was lost or mixed up. `test_exactness.py`,
`tests/bench/soak.py` and `tests/bench/gpu_vllm.py` run it.
"""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from alise_engine.wire.calls import LimitsRow, RankRow
from alise_engine.wire.terms import CODEC_RAW, PHASE_OFFLOADED
from tests.engine.harness import BLOCK_SIZE, HOST_BYTES, Engine, EngineOptions

LONGEST_PROMPT: Final = 1_500
ANSWER_TOKENS: Final = 40
# Logarithm of the ratio between the two likeliest tokens. Measured shifts by the batch around are below 1e-5.
NEAR_TIE: Final = 2e-3
# Around what may go wrong: one token, the ends of blocks, the longest.
LENGTHS: Final = (1, 2, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE, LONGEST_PROMPT)
LIVE: Final = 9
# Room for three of the longest prompts, and chunks that cut them in three.
_SMALL: Final = EngineOptions(max_num_seqs=4, blocks=161, max_model_len=1_600, max_num_batched_tokens=512)
OPTIONS: Final = {
    "synchronous": replace(_SMALL, copy_thread=True),
    "asynchronous": replace(_SMALL, copy_thread=False, asynchronous=True),
    "synchronous with a prefix cache": replace(_SMALL, copy_thread=False, prefix_caching=True),
    "asynchronous with a prefix cache": replace(_SMALL, copy_thread=True, asynchronous=True, prefix_caching=True),
}
DRAIN_STEPS: Final = 4_000


@dataclass(frozen=True, slots=True)
class Question:
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mix:
    """How often what happens, per turn. A turn is a plan and up to five steps."""

    arrival: float = 0.6
    # A job goes behind all others: it is preempted as soon as another waits.
    demotion: float = 0.3
    # Jobs that are ranked per turn, and by how many levels a better one must lead to preempt. Each of these is as likely; 0: never.
    ranked: int = 6
    preempt_levels: tuple[int, ...] = (0, 1, 1, 2)
    abort: float = 0.0
    # The host store is cut to a few blocks for a while: copies are dropped.
    small_budget: float = 0.0
    # No device block is free for a turn: memory runs out.
    squeeze: float = 0.0
    reset: float = 0.0
    pause: float = 0.0
    expiry: float = 0.0
    corrupt: float = 0.0


# Everything is restored from the host: what is measured is that restoring is exact.
EXACT: Final = Mix()
# Fewer preemptions: a copy stays on the host for longer before it is read.
CORRUPT: Final = Mix(corrupt=1.0, ranked=4, preempt_levels=(0, 1, 2))
EVERYTHING: Final = Mix(abort=0.05, small_budget=0.1, squeeze=0.25, reset=0.05, pause=0.05, expiry=0.03)


@dataclass(slots=True)
class Outcome:
    """What a round of turns came to."""

    finished: int = 0
    aborted: int = 0
    steps: int = 0
    preemptions: int = 0
    # Preempted requests that were restored from the host, and those that cost one scheduled token.
    restores: int = 0
    exact_resumes: int = 0
    recomputes: int = 0
    preemptions_memory: int = 0
    prefetches: int = 0
    prefetches_revoked: int = 0
    stuck: int = 0
    leaked_blocks: int = 0
    leaked_bytes: int = 0
    # Names of questions whose answer was another, with the first place where it differed.
    diverged: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        return {name: value for name, value in asdict(self).items() if name != "diverged"}

    def is_clean(self) -> bool:
        return not (self.diverged or self.stuck or self.leaked_blocks or self.leaked_bytes)


def questions(engine: Engine, seed: int, count: int) -> list[Question]:
    """`count` questions with the engine's undisturbed answers, prompts of 1 to LONGEST_PROMPT tokens."""
    chance = random.Random(seed)
    found: list[Question] = []
    lengths = list(LENGTHS)
    while len(found) < count:
        length = lengths[0] if lengths else round(LONGEST_PROMPT ** chance.random())
        # Some have the same beginning: the prefix cache then has blocks of one for another.
        words = bytes(chance.choice([list(b"the sea and the ships "), [chance.randrange(97, 123) for _ in range(22)]]))
        prompt = [256, *(words * (length // len(words) + 1)), *(chance.randrange(256) for _ in range(5))][:length]
        name = engine.ask(prompt, ANSWER_TOKENS, logprobs=2)
        engine.finish(name)
        if not _comes_near_a_tie(engine.answers[name].completions[0].logprobs):
            found.append(Question(tuple(prompt), tuple(engine.tokens(name))))
            lengths = lengths[1:]
    engine.fresh()
    return found


def _comes_near_a_tie(logprobs: Iterable[dict[int, Any]]) -> bool:
    for position in logprobs:
        best, second, *_ = sorted((entry.logprob for entry in position.values()), reverse=True)
        if best - second < NEAR_TIE:
            return True
    return False


class Round:
    """One engine, one seed, a number of turns. `run` returns the outcome, and leaves the engine as it was."""

    def __init__(self, engine: Engine, asked: list[Question], seed: int, mix: Mix) -> None:
        self.engine, self.asked, self.mix = engine, asked, mix
        self.chance = random.Random(seed)
        self.live: dict[str, tuple[str, Question]] = {}
        self.jobs = 0
        self.corrupted = False
        self.block_bytes = engine.snapshot().shape.block_bytes
        self.outcome = Outcome()

    def run(self, turns: int) -> Outcome:
        engine, outcome = self.engine.fresh(), self.outcome
        engine.set_codec(CODEC_RAW)
        before = engine.counters()
        for _ in range(turns):
            self._turn()
        self._drain()
        after = engine.counters()
        outcome.steps = after.steps - before.steps
        outcome.preemptions = after.preemptions_rank + after.preemptions_memory
        outcome.restores, outcome.exact_resumes, outcome.recomputes = after.restores, after.exact_resumes, after.recomputes
        outcome.preemptions_memory = after.preemptions_memory
        outcome.prefetches, outcome.prefetches_revoked = after.prefetches, after.prefetches_revoked
        outcome.leaked_blocks = before.free_device_blocks - after.free_device_blocks
        outcome.leaked_bytes = engine.pool.used_bytes + after.host_raw_bytes
        return outcome

    def _turn(self) -> None:
        engine, chance, mix = self.engine, self.chance, self.mix
        if len(self.live) < LIVE and chance.random() < mix.arrival:
            self._arrive()
        if self.live and chance.random() < mix.abort:
            self._abort()
        budget = chance.randint(1, 40) * self.block_bytes if chance.random() < mix.small_budget else HOST_BYTES
        limits = LimitsRow(chance.choice(mix.preempt_levels), chance.randint(0, 4), 10**6, 1.0, budget)
        engine.apply(*self._ranks(), limits=limits)
        if chance.random() < mix.corrupt and not self.corrupted:
            self._corrupt()
        if chance.random() < mix.reset:
            engine.llm.reset_prefix_cache()
        with self._squeezed(), self._paused():
            self._step(chance.randint(1, 5))
        if chance.random() < mix.expiry:
            engine.clock.seconds += 3

    def _arrive(self) -> None:
        chance = self.chance
        # Now and then a second request of a job that is there.
        jobs = [job for job, _ in self.live.values()]
        if not jobs or chance.random() < 0.85:
            self.jobs += 1
            jobs = [f"job{self.jobs}"]
        job, question = chance.choice(jobs), chance.choice(self.asked)
        name = self.engine.ask(list(question.prompt), ANSWER_TOKENS, job=job, priority=chance.randint(-3, 3) << 32)
        self.live[name] = (job, question)

    def _abort(self) -> None:
        name = self.chance.choice(sorted(self.live))
        del self.live[name]
        self.engine.abort(name)
        self.outcome.aborted += 1

    def _ranks(self) -> Iterator[RankRow]:
        chance = self.chance
        jobs = sorted({job for job, _ in self.live.values()})
        for job in chance.sample(jobs, min(len(jobs), self.mix.ranked)):
            level = 9 if chance.random() < self.mix.demotion else chance.randint(-3, 3)
            yield RankRow(job, level, chance.randint(0, 9), chance.choice([0, 300, 5_000]))

    def _step(self, count: int) -> None:
        for _ in range(count):
            self.engine.step()
            for name in [name for name in self.live if self.engine.answers[name].finished]:
                _, question = self.live.pop(name)
                self._compare(name, question)

    def _compare(self, name: str, question: Question) -> None:
        self.outcome.finished += 1
        said = self.engine.tokens(name)
        if tuple(said) != question.answer:
            place = next((i for i, (a, b) in enumerate(zip(said, question.answer, strict=False)) if a != b), len(said))
            self.outcome.diverged.append(f"{name}: a prompt of {len(question.prompt)} tokens, at token {place}")

    @contextmanager
    def _squeezed(self) -> Iterator[None]:
        """All free device blocks are taken meanwhile."""
        pool = self.engine.scheduler.kv_cache_manager.block_pool
        count = pool.get_num_free_blocks() if self.chance.random() < self.mix.squeeze else 0
        taken = pool.get_new_blocks(count)
        yield
        pool.free_blocks(taken)

    @contextmanager
    def _paused(self) -> Iterator[None]:
        from vllm.v1.core.sched.interface import PauseState

        scheduler = self.engine.scheduler
        if self.chance.random() < self.mix.pause:
            scheduler.set_pause_state(self.chance.choice([PauseState.PAUSED_NEW, PauseState.PAUSED_ALL]))
        yield
        scheduler.set_pause_state(PauseState.UNPAUSED)

    def _corrupt(self) -> None:
        """Flips the exponent of one number of a copy that will be read."""
        engine = self.engine
        offloaded = [r.request_id for r in engine.snapshot().requests if r.phase == PHASE_OFFLOADED and r.host_tokens > 2]
        for request_id in offloaded[:1]:
            chunk = next(engine.pool.read(request_id, 0, 1))
            _, rows = next(chunk.pieces(0))
            rows[0, 3] ^= 0x7F
            self.corrupted = True

    def _drain(self) -> None:
        """Ranks all neutral and lets them finish; what does not is stuck."""
        engine = self.engine
        for _ in range(DRAIN_STEPS):
            if not self.live:
                break
            jobs = {job for job, _ in self.live.values()}
            engine.apply(*(RankRow(job, 0, 0, 0) for job in sorted(jobs)), limits=LimitsRow(host_budget_bytes=HOST_BYTES))
            self._step(20)
        self.outcome.stuck = len(self.live)
        for name in self.live:
            engine.abort(name)
        engine.step(4)
