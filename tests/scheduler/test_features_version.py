"""The version of the feature set names what stored rows, heads and priors were computed from: it has to change with the features."""

import hashlib
import math
from pathlib import Path

import numpy as np

from alise_scheduler.predictor.features.conversation import Conversations, complete
from alise_scheduler.predictor.features.request import Question, extract
from alise_scheduler.predictor.features.row import FEATURES_VERSION
from alise_scheduler.predictor.models.encoder import TOKENS_VERSION
from alise_scheduler.predictor.models.prior import LAYOUT
from alise_scheduler.predictor.models.wordpiece import Vocabulary
from alise_scheduler.predictor.training.prior_fit import FIT_VERSION, fit
from alise_scheduler.predictor.training.prior_lines import own_lines
from tests.scheduler.hash_encoder import HashEncoder

PROMPTS = (
    "Is a tomato a fruit or a vegetable? Answer with one word.",
    "Please write an essay of 800 words about whaling, in detail.\n\n- history\n- ships",
    'Translate "Guten Morgen, wie geht es?" into French.',
    "```python\ndef f(x):\n    return x * 2 + 1\n```\nWhy is this slow? See https://example.com",
    "列出三个城市。",
    "List five ways to cook rice " + "with beans and water " * 300 + "and summarize them briefly.",
)
# Each is the digest of what its version stands for. When a test fails, increase the version and put the new digest beside it.
FEATURES = {10: "48b4f6dabd1f5a07"}
TOKENS = {1: "40553ff9986b590f"}
PRIORS = {(1, 3): "5436f64a051adb6b"}


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.round(np.nan_to_num(values.astype(np.float64), nan=-99.0), 4).tobytes()).hexdigest()[:16]


def test_fixed_requests_have_the_features_of_this_version() -> None:
    held = Conversations()
    rows = []
    for turn, prompt in enumerate(PROMPTS):
        question = Question(
            endpoint=1 + turn % 2, prompt=prompt, prompt_chars=len(prompt) + 400 * turn, turns=2 * turn + 1, max_tokens=64 * turn,
            structured=turn == 3, temperature=math.nan if turn % 2 else 0.7, conversation_now=f"turn {turn}",
            conversation_previous=f"turn {turn - 1}" if turn else "", embedding=HashEncoder().encode([prompt])[0],
        )  # fmt: skip
        request = extract(question, b"salt")
        rows.append(complete(request, held.find(request.previous), 4.0 + 0.1 * turn))
        held.add(request.previous, request.now, 5.0 + 0.2 * turn, request.embedding, 4.0, 0.05 * turn)
    assert digest(np.concatenate(rows)) == FEATURES[FEATURES_VERSION]


def test_fixed_texts_have_the_tokens_of_this_version(tmp_path: Path) -> None:
    words = {word for prompt in PROMPTS for word in prompt.lower().split() if word.isalpha() and len(word) < 6}
    pieces = ["[CLS]", "[SEP]", "[UNK]", *sorted(words), *(f"##{letter}" for letter in "aeioulnrst"), *"abcdefghijklmnopqrstuvwxyz.,?!"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    vocabulary = Vocabulary(tmp_path / "vocab.txt")
    ids = [number for prompt in PROMPTS for number in vocabulary.ids(prompt)]
    assert digest(np.array(ids)) == TOKENS[TOKENS_VERSION]


def test_fixed_lines_give_the_prior_of_this_version() -> None:
    prior = fit(own_lines()[:60], None)
    expected = [prior.expect(extract(Question(1, prompt), b"").numbers, None) for prompt in PROMPTS]
    assert digest(np.round(np.array(expected), 2)) == PRIORS[FIT_VERSION, LAYOUT]
