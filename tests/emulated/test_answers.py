"""Answers follow from the KV of all tokens before them, wherever its blocks are."""

from collections.abc import Sequence

from tests.emulated.answers import Answer, Vocabulary
from tests.emulated.memory import DeviceMemory, HostMemory, word, words

VOCABULARY = Vocabulary(tuple(range(100, 200)), 2)
PROMPT = [7, 8, 9, 10, 11, 12]
SIZE = 4


def answer_of(blocks: Sequence[int], wanted: int | None = None) -> Answer:
    return Answer(list(PROMPT), len(PROMPT), list(blocks), wanted)


def decoded(answer: Answer, memory: DeviceMemory, tokens: int) -> list[int]:
    """Goes on until it has this many tokens."""
    said = len(answer.tokens) - answer.prompt_tokens
    for _ in range(tokens - said):
        computed = max(answer.summed, 0)
        answer.compute(memory, computed, len(answer.tokens) - computed, VOCABULARY)
    return answer.tokens[answer.prompt_tokens :]


def undisturbed(tokens: int) -> list[int]:
    return decoded(answer_of([0, 1, 2, 3, 4]), DeviceMemory(8, SIZE), tokens)


def test_the_words_of_many_tokens_are_those_of_each() -> None:
    assert words([5, 0, 77], 30).tolist() == [word(5, 30), word(0, 31), word(77, 32)]


def test_a_prompt_in_parts_is_answered_as_a_whole_one() -> None:
    memory, answer = DeviceMemory(8, SIZE), answer_of([5, 2, 7, 0, 1])
    assert answer.compute(memory, 0, 5, VOCABULARY) is None
    assert answer.compute(memory, 5, 1, VOCABULARY) == undisturbed(1)[0]


def test_an_answer_has_as_many_tokens_as_its_request_names_and_then_ends() -> None:
    said = decoded(answer_of([0, 1, 2, 3], wanted=5), DeviceMemory(8, SIZE), 5)
    assert said[-1] == VOCABULARY.end
    assert VOCABULARY.end not in said[:-1]


def test_an_answer_without_a_length_has_one_of_its_own() -> None:
    answer = answer_of([0, 1])
    answer.compute(DeviceMemory(8, SIZE), 0, len(PROMPT), VOCABULARY)
    assert answer.wanted_tokens is not None
    assert answer.wanted_tokens >= 8


def test_an_endless_answer_never_ends() -> None:
    answer = answer_of([0, 1, 2, 3, 4], wanted=3)
    answer.endless = True
    assert VOCABULARY.end not in decoded(answer, DeviceMemory(8, SIZE), 10)


def parked(blocks: Sequence[int], spoilt: bool = False) -> list[int]:
    """An answer that is saved after four tokens and goes on in these blocks."""
    memory, host, answer = DeviceMemory(8, SIZE), HostMemory(), answer_of([0, 1, 2, 3, 4])
    decoded(answer, memory, 4)
    # The last token is not computed yet.
    computed = len(answer.tokens) - 1
    assert host.save("r", 0, memory.read_blocks([0, 1, 2]), 10.0) == 30.0
    memory.write_blocks([0, 1, 2], words([1] * 12, 0).reshape(3, SIZE))
    rows, size = host.load("r", 0, 3)
    assert size == 30.0
    memory.write_blocks(blocks[:3], rows[[1, 0, 2]] if spoilt else rows)
    answer.resumed(answer.tokens)
    answer.block_ids = list(blocks)
    answer.compute(memory, computed, 1, VOCABULARY)
    return decoded(answer, memory, 9)


def test_an_answer_goes_on_as_it_would_have_when_its_blocks_come_back_elsewhere() -> None:
    assert parked([7, 5, 6, 3, 4]) == undisturbed(9)


def test_an_answer_differs_when_its_blocks_come_back_in_another_order() -> None:
    assert parked([7, 5, 6, 3, 4], spoilt=True) != undisturbed(9)


def test_blocks_that_are_saved_again_take_the_place_of_the_older_ones() -> None:
    host = HostMemory()
    host.save("r", 0, words([1] * 8, 0).reshape(2, SIZE), 10.0)
    host.save("r", 1, words([2] * 8, 4).reshape(2, SIZE), 5.0)
    rows, size = host.load("r", 0, 5)
    assert (rows.tolist(), size) == ([*words([1] * 4, 0).reshape(1, SIZE).tolist(), *words([2] * 8, 4).reshape(2, SIZE).tolist()], 20.0)


def test_a_copy_that_was_dropped_gives_nothing_back() -> None:
    host = HostMemory()
    host.save("r", 0, words([1] * 4, 0).reshape(1, SIZE), 10.0)
    host.drop("r")
    rows, size = host.load("r", 0, 1)
    assert (len(rows), size) == (0, 0)
