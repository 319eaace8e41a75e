"""The simulator preempts by rank whom the real engine would preempt."""

from hypothesis import given
from hypothesis import strategies as st

from alise_contract.names import pack_priority
from alise_engine.enginecore import decide
from alise_engine.wire.calls import LimitsRow
from alise_simulator.preemption import choose
from alise_simulator.request import Request

# Level, blocks (own ones of a running request, needed ones of a waiting one), and steps since a running one was admitted.
ROWS = st.lists(st.tuples(st.integers(-8, 8), st.integers(0, 6), st.integers(0, 8)), max_size=8)


def requests(rows: list[tuple[int, int, int]], first: int) -> list[Request]:
    """The order within a level is that of the rows, as it is that of the arrivals where lengths are equal."""
    made = []
    for index, (level, _, _) in enumerate(rows, start=first):
        request = Request(index, float(index), 1, 1)
        request.level = level
        made.append(request)
    return made


@given(ROWS, ROWS, st.integers(0, 3), st.integers(0, 6), st.integers(1, 6), st.integers(0, 6))
def test_the_simulator_and_the_engine_choose_the_same_requests(
    running: list[tuple[int, int, int]], waiting: list[tuple[int, int, int]], slots: int, blocks: int, levels: int, quantum: int
) -> None:
    ours = requests(running, 0)
    queue = sorted((one.level, one.order, one) for one in requests(waiting, 100))
    own = dict(zip((one.index for one in ours), running, strict=True))
    needs = dict(enumerate(waiting, start=100))

    chosen = choose(
        [one for one in ours if own[one.index][2] >= quantum],
        queue,
        slots,
        blocks,
        levels=levels,
        needed_blocks=lambda one: needs[one.index][1],
        own_blocks=lambda one: own[one.index][1],
    )

    expected = decide.choose_preemptions(
        [decide.Running(str(i), pack_priority(level, i), i, held, steps) for i, (level, held, steps) in own.items()],
        [
            decide.Waiting(str(one.index), pack_priority(int(level), one.order), one.arrived_at, needs[one.index][1])
            for level, _, one in queue
        ],
        slots,
        blocks,
        LimitsRow(preempt_levels=levels, min_quantum_steps=quantum),
    )
    assert tuple(str(one.index) for one in chosen.victims) == expected, "change preemption.py and enginecore/decide.py together"
