"""Everything at once, at random and repeatable: ranks, holds, budgets, aborts, memory pressure. Answers must not notice."""

import random

from alise_engine.core_protocol import CODEC_RAW, LimitsRow, RankRow
from tests.engine.harness import Engine

JOBS = 7


def _prompt(job: int) -> list[int]:
    # From one block to half of the device's; jobs 0 and 1 begin alike.
    words = b"the sea and the ships " if job < 2 else bytes([97 + job]) * 22
    return [256, *(words * (1 + 4 * job))[: 40 + 75 * job]]


def endure(engine: Engine, seed: int, turns: int = 120) -> None:
    """Runs seven requests through turmoil and checks what they say against what they say alone, and that nothing is left behind."""
    expected = []
    for job in range(JOBS):
        name = engine.ask(_prompt(job), 60)
        engine.finish(name)
        expected.append(list(engine.tokens(name)))
    engine.fresh().set_codec(CODEC_RAW)
    free = engine.counters().free_device_blocks
    block_bytes = engine.snapshot().shape.block_bytes
    pool = engine.scheduler.kv_cache_manager.block_pool
    taken = pool.get_new_blocks(25)
    try:
        names, aborted = _stir(engine, random.Random(seed), turns, block_bytes)
    finally:
        pool.free_blocks(taken)
    assert [engine.tokens(names[job]) for job in range(JOBS) if job not in aborted] == [
        answer for job, answer in enumerate(expected) if job not in aborted
    ]
    counters = engine.counters()
    assert counters.preemptions_rank + counters.preemptions_hold > 10
    assert counters.restores > 0
    assert (engine.pool.used_bytes, counters.free_device_blocks, engine.scheduler.has_requests()) == (0, free, False)


def _stir(engine: Engine, chance: random.Random, turns: int, block_bytes: int) -> tuple[dict[int, str], set[int]]:
    """The requests by job, all finished but for the aborted jobs."""
    names = {job: engine.ask(_prompt(job), 60, job=f"job{job}") for job in range(JOBS)}
    aborted: set[int] = set()
    for turn in range(turns):
        ranks = [
            RankRow(f"job{job}", chance.randint(-3, 3), chance.randint(0, 9), chance.random() < 0.3, chance.randint(0, 5000))
            for job in chance.sample(range(JOBS), 3)
        ]
        if turn % 15 == 0:
            # A budget that falls drops whole copies, so it is left alone for a while.
            budget = chance.choice([4, 12, 40, 10_000]) * block_bytes
        engine.apply(*ranks, limits=LimitsRow(chance.randint(0, 2), chance.randint(0, 4), 10**6, 1.0, budget))
        engine.step(chance.randint(1, 5))
        counters = engine.counters()
        assert engine.pool.used_bytes <= budget
        assert counters.host_int8_bytes == 0
        if turn == turns // 2:
            aborted.add(chance.randrange(JOBS))
            engine.abort(names[min(aborted)])
        if chance.random() < 0.1:
            engine.clock.seconds += 3
    engine.lift(*(f"job{job}" for job in range(JOBS)))
    engine.finish(*(name for job, name in names.items() if job not in aborted))
    engine.step(4)
    return names, aborted
