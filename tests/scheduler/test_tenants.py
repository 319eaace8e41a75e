"""L6: one tenant's requests neither decide another's predictions, nor evict its rows, nor reveal its prompts."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.core.lengths import PRIOR
from alise_scheduler.predictor.features.conversation import Conversations
from alise_scheduler.predictor.features.request import Question, extract
from alise_scheduler.predictor.interface import Observation
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.predictor.models.calibration import Calibration, middle
from alise_scheduler.predictor.served_head import ServedHead, serve_head
from alise_scheduler.predictor.shares import LEAST_ROWS, SHARES, FairLru, FairSlots, fair_level, most
from alise_scheduler.predictor.training.fit import train
from alise_scheduler.predictor.training.samples import Recent
from alise_scheduler.predictor.training.trial import FIRST_TRAINING
from tests.scheduler.predictor_builders import SALT, make_features, make_sample

pytestmark = pytest.mark.process

TENANTS = st.lists(st.integers(0, 5), max_size=200)


def flood(predictor: Any, tenant: str, tokens: int = 3, times: int = 128) -> None:
    for number in range(times):
        predictor.learn(make_features(f"Name one fact about {number}", tenant=tenant), Observation(tokens, True))


@pytest.mark.parametrize("others", [0, 20], ids=["without another tenant yet", "beside a second tenant"])
def test_l6_128_answers_of_three_tokens_do_not_decide_what_another_tenant_is_told(others: int) -> None:
    predictor = LearnedPredictor()
    flood(predictor, "second", tokens=200, times=others)
    flood(predictor, "hostile")
    third = predictor.predict(make_features("Name one fact about rivers", tenant="third"), 0).median
    assert third > PRIOR.median / 4


def test_l6_a_head_that_learned_from_one_tenant_is_half_believed_by_the_next() -> None:
    predictor = LearnedPredictor()
    flood(predictor, "hostile", times=FIRST_TRAINING)
    history = predictor.newest()
    predictor.install(serve_head(train(history, 1), history))
    third, own = (predictor.predict(make_features("Name one fact about rivers", tenant=name), 0).median for name in ("third", "hostile"))
    assert own == pytest.approx(3, rel=0.3)
    assert third > math.sqrt(PRIOR.median * 3) / 1.5


def test_a_tenant_learns_its_own_lengths_beside_a_hostile_one() -> None:
    predictor = LearnedPredictor()
    flood(predictor, "hostile")
    for _ in range(20):
        predictor.learn(make_features("Summarize the story of bread", tenant="third"), Observation(300, True))
    assert predictor.predict(make_features("Summarize the story of bread", tenant="third"), 0).median == pytest.approx(300, rel=0.2)


def test_l6_a_copy_of_another_tenants_prompt_is_another_prompt() -> None:
    one, two = (extract(Question(endpoint=1, prompt="secret", conversation="c", tenant=name), SALT) for name in ("one", "two"))
    assert one.text != two.text


def test_several_tenants_corrections_do_not_mix_and_a_new_one_has_their_median() -> None:
    calibration, quantiles = Calibration(), np.linspace(4, 6, 10).astype(np.float32)
    for tenant, log_tokens in ((1, 1.0), (2, 5.0), (3, 5.1)):
        for _ in range(300):
            calibration.learn(quantiles, ((7,),), log_tokens, True, tenant)
    hostile, honest, newcomer = (middle(calibration.apply(quantiles, ((7,),), tenant)) for tenant in (1, 2, 9))
    assert hostile < 3
    assert honest == pytest.approx(5.0, abs=0.2)
    assert newcomer == pytest.approx(5.0, abs=0.2)


@pytest.mark.parametrize(
    ("rows", "tenant", "trust"),
    [
        pytest.param({}, 1, 1.0, id="nothing is known of who taught it"),
        pytest.param({1: 5000}, 1, 1.0, id="one's own"),
        pytest.param({1: 5000}, 2, 0.5, id="one other's"),
        pytest.param({1: 5000, 2: 64}, 2, 1.0, id="enough of one's own in it"),
        pytest.param(dict.fromkeys(range(1, 10), 100), 99, 0.9, id="nine others'"),
    ],
)
def test_how_far_a_head_is_believed(rows: dict[int, int], tenant: int, trust: float) -> None:
    assert ServedHead(None, rows).trust(tenant) == pytest.approx(trust)  # type: ignore[arg-type]


# --- room -----------------------------------------------------------------------------------------------------------------------------


@given(TENANTS, st.integers(1, 150))
def test_no_tenant_takes_more_than_its_share_of_slots(tenants: list[int], capacity: int) -> None:
    slots, owner = FairSlots(capacity), dict[int, int]()
    for tenant in tenants:
        before = Counter(owner.values())
        owner[slots.take(tenant)] = tenant
        counts = Counter(owner.values())
        assert len(owner) == slots.used <= capacity
        assert counts[tenant] <= max(most(capacity, len(before | {tenant: 1})), 1) or len(counts) == 1


@given(TENANTS)
def test_with_one_tenant_slots_are_a_ring(tenants: list[int]) -> None:
    slots = FairSlots(7)
    assert [slots.take(3) for _ in tenants] == [number % 7 for number in range(len(tenants))]


@given(TENANTS)
def test_a_cache_holds_what_it_may_and_with_one_tenant_the_newest(tenants: list[int]) -> None:
    cache, alone = FairLru[int, int](10), FairLru[int, int](10)
    for number, tenant in enumerate(tenants):
        cache.put(tenant, number, number)
        alone.put(0, number, number)
        assert cache.get(tenant, number) == number
        assert len(cache) <= 10
    newest = range(max(0, len(tenants) - 10), len(tenants))
    assert [alone.get(0, number) for number in newest] == list(newest)


@given(st.lists(st.integers(0, 100), max_size=10), st.integers(0, 300))
def test_the_fair_level_uses_the_room_and_no_more(counts: list[int], capacity: int) -> None:
    level = fair_level(counts, capacity)
    assert sum(min(count, level) for count in counts) <= capacity
    assert level >= max(counts, default=0) or sum(min(count, level + 1) for count in counts) > capacity


def test_l6_a_flood_leaves_what_the_others_taught() -> None:
    recent = Recent(rows=1000)
    for tenant in (1, 2, 3):
        for _ in range(100):
            recent.add(make_sample(tokens=50, tenant=tenant))
    flood_rows = 5000
    sample = make_sample(tokens=3, tenant=9)
    for _ in range(flood_rows):
        recent.add(sample)
    tenants = recent.newest(1000).tenants
    assert tenants is not None
    assert Counter(tenants.tolist()) == {1: 100, 2: 100, 3: 100, 9: most(1000, 4)}


@pytest.mark.parametrize(
    ("capacity", "tenants", "rows"),
    [
        pytest.param(20_000, 1, 20_000, id="one tenant has all"),
        pytest.param(20_000, 2, 10_000, id="two have a half each"),
        pytest.param(20_000, 50, 20_000 // SHARES, id="of many none has more than an eighth"),
        pytest.param(128, 50, LEAST_ROWS, id="a share is never too small to learn from"),
    ],
)
def test_shares(capacity: int, tenants: int, rows: int) -> None:
    assert most(capacity, tenants) == rows


def test_what_came_while_a_head_was_trained_is_added_once_after_old_rows_have_gone() -> None:
    recent = Recent(rows=10)
    for number in range(10):
        recent.add(make_sample(tokens=number + 1.0))
    seen = recent.added
    for number in range(4):
        recent.add(make_sample(tokens=100.0 + number))
    assert np.exp(recent.newest(100, since=seen).log_tokens) == pytest.approx([100, 101, 102, 103])


def test_one_tenants_conversations_do_not_push_out_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alise_scheduler.predictor.features.conversation.MAX_CONVERSATIONS", 200)
    held = Conversations()
    for number in range(1, 51):
        held.add(0, number, 1.0, tenant=1)
    for number in range(1000, 2000):
        held.add(0, number, 1.0, tenant=2)
    assert all(held.find(number, 1) is not None for number in range(1, 51))
    assert len(held) <= 200
