"""Every field of a plan's ranks and limits arrives in EngineCore, from the scheduler's data through the message to the engine's rows."""

from dataclasses import fields
from typing import Any

from alise_contract.v1 import engine_control_pb2 as pb
from alise_engine.api.control.convert import apply_call
from alise_engine.wire.calls import ApplyCall, LimitsRow, RankRow
from alise_scheduler.core.plan import Limits, Plan, Rank
from alise_scheduler.engine.convert import to_apply

WHERE = "alise_engine/wire/calls.py says where a field is added"


def distinct(cls: type[Any]) -> Any:
    """An instance whose fields all differ from each other and from their defaults; fractions are exact in 32 bits."""
    return cls(**{one.name: 1 / 2**place if one.type is float else 70 + place for place, one in enumerate(fields(cls), start=2)})


def sent(plan: Plan) -> ApplyCall:
    """What EngineCore is asked to do for this plan."""
    return apply_call(pb.ApplyRequest.FromString(to_apply("session", 1, plan).SerializeToString()))


def test_the_limits_of_a_plan_arrive_with_every_field() -> None:
    limits = distinct(Limits)
    arrived = sent(Plan(limits=limits)).limits
    assert {one.name: getattr(limits, one.name) for one in fields(Limits)} == {
        name: getattr(arrived, name) for name in LimitsRow.__struct_fields__
    }, WHERE
    assert [one.name for one in fields(Limits)] == [one.name for one in pb.Limits.DESCRIPTOR.fields], WHERE


def test_a_rank_of_a_plan_arrives_with_every_field() -> None:
    rank = distinct(Rank)
    (arrived,) = sent(Plan(ranks={"job": rank})).ranks
    assert {"job_id": "job"} | {one.name: getattr(rank, one.name) for one in fields(Rank)} == {
        name: getattr(arrived, name) for name in RankRow.__struct_fields__
    }, WHERE
    assert {one.name for one in pb.Rank.DESCRIPTOR.fields} == set(RankRow.__struct_fields__), WHERE
