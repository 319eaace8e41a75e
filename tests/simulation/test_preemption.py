"""The simulator preempts by rank whom the real engine would preempt, and looks again when one more may go."""

from hypothesis import given
from hypothesis import strategies as st

from alise_contract.names import MIN_LEVEL, pack_priority
from alise_engine.enginecore import decide
from alise_engine.wire.calls import LimitsRow
from alise_scheduler.core.plan import Limits
from alise_simulator.preemption import Choice, Queued, choose, outranked
from alise_simulator.request import Request

STEP = 20
# Level, blocks (own ones of a running request, needed ones of a waiting one), and steps since a running one was admitted.
Row = tuple[int, int, int]
ROWS = st.lists(st.tuples(st.integers(-8, 8), st.integers(0, 6), st.integers(0, 8)), max_size=8)


def requests(rows: list[Row], first: int) -> list[Request]:
    """The order within a level is that of the rows, as it is that of the arrivals where lengths are equal."""
    made = []
    for index, (level, _, steps) in enumerate(rows, start=first):
        request = Request(index, float(index), 1, 1)
        request.level, request.start_step = level, STEP - steps
        made.append(request)
    return made


def simulated(
    running: list[Row], waiting: list[Row], slots: int, blocks: int, levels: int, quantum: int, *, spared: int = 0, step: int = STEP
) -> Choice:
    """What the simulator chooses. Running requests count from 0, waiting ones from 100."""
    queue: list[Queued] = sorted((one.level, one.order, one) for one in requests(waiting, 100))
    limits = Limits(levels, quantum, 0, 0.0, 0, spared)
    return choose(
        outranked(requests(running, 0), queue, limits),
        queue,
        slots,
        blocks,
        step=step,
        limits=limits,
        needed_blocks=lambda one: waiting[one.index - 100][1],
        own_blocks=lambda one: running[one.index][1],
    )


# Mostly around the levels of the rows, and none or all.
SPARED = st.one_of(st.just(0), st.integers(-9, 9).map(lambda level: level - MIN_LEVEL), st.just(256))


@given(ROWS, ROWS, st.integers(0, 3), st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), SPARED)
def test_the_simulator_and_the_engine_choose_the_same_requests(
    running: list[Row], waiting: list[Row], slots: int, blocks: int, levels: int, quantum: int, spared: int
) -> None:
    queue = sorted((level, index, needs) for index, (level, needs, _) in enumerate(waiting, start=100))
    expected = decide.choose_preemptions(
        [decide.Running(str(i), pack_priority(level, i), i, own, steps) for i, (level, own, steps) in enumerate(running)],
        [decide.Waiting(str(index), pack_priority(level, index), float(index), needs) for level, index, needs in queue],
        slots,
        blocks,
        LimitsRow(preempt_levels=levels, min_quantum_steps=quantum, spared_levels=spared),
    )
    chosen = simulated(running, waiting, slots, blocks, levels, quantum, spared=spared)
    assert tuple(str(one.index) for one in chosen.victims) == expected, "change preemption.py and enginecore/decide.py together"


def test_it_looks_again_at_the_step_at_which_the_first_of_those_that_ran_too_shortly_may_go() -> None:
    running, waiting = [(9, 1, 1), (9, 1, 2)], [(0, 1, 0)]
    early = simulated(running, waiting, 0, 0, 6, 4)
    assert early == Choice((), STEP + 2)
    assert simulated(running, waiting, 0, 0, 6, 4, step=STEP + 1).victims == ()
    assert [one.index for one in simulated(running, waiting, 0, 0, 6, 4, step=early.recheck_step).victims] == [1]


def test_it_does_not_look_again_where_every_candidate_fits_or_none_may_go_later() -> None:
    assert simulated([(9, 1, 1)], [(0, 1, 0)], 1, 1, 6, 4) == Choice(())
    assert simulated([(9, 1, 9)], [(0, 5, 0)], 0, 0, 6, 4) == Choice(())
