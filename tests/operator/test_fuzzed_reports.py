"""What a pod may answer when it is asked for its status: whatever that is, it is a report or a refusal, and conditions stay readable."""

import pytest

from tests.operator.fuzz.answers import ANSWERS, answers_become_conditions
from tests.operator.fuzz.run import fuzz


@pytest.mark.process
def test_fuzzed_answers_of_pods_become_conditions() -> None:
    assert fuzz(ANSWERS, {"answers_become_conditions": answers_become_conditions}, 300, seed=13).findings == {}
