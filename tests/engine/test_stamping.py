"""The stamp on an engine request: signed where the engine is handed the request, believed in EngineCore, and nothing else is."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.names import MAX_HINT_BYTES, MAX_JOB_ID_CHARS, POD_KEY_BYTES, pack_priority
from alise_engine.api.stamping import CURRENT, Ticket, stamping
from alise_engine.wire.stamp import NEUTRAL_PRIORITY, Stamp, read_stamp, stamp_key, stamped_args
from tests.engine.middleware_server import Params

KEY = stamp_key(b"p" * POD_KEY_BYTES)
OTHER_PODS = stamp_key(b"q" * POD_KEY_BYTES)
STAMP = Stamp("job", pack_priority(-3, 17), "aGludA==")
SIGNED = stamped_args(None, STAMP, KEY)


def test_what_this_pod_signed_is_believed() -> None:
    assert read_stamp(SIGNED, KEY) == STAMP


UNBELIEVED = [
    pytest.param({}, id="nothing"),
    pytest.param(None, id="no extra arguments"),
    pytest.param({"alise_job": "job", "alise_hint": "aGludA=="}, id="a job without a signature"),
    pytest.param({**SIGNED, "alise_job": "other"}, id="another job"),
    pytest.param({**SIGNED, "alise_hint": "b3RoZXI="}, id="another hint"),
    pytest.param({**SIGNED, "alise_stamp": SIGNED["alise_stamp"].replace("-", "-9", 1)}, id="a better priority"),
    pytest.param({**SIGNED, "alise_stamp": "0." + "00" * 16}, id="a made-up signature"),
    pytest.param({**SIGNED, "alise_stamp": "0"}, id="no signature"),
    pytest.param({**SIGNED, "alise_stamp": "soon." + "00" * 16}, id="no number"),
    pytest.param({**SIGNED, "alise_stamp": 7}, id="a number for a signature"),
    pytest.param({**SIGNED, "alise_job": ["job"]}, id="a list for a job"),
    pytest.param({**SIGNED, "alise_hint": "x" * 66_000_000}, id="an endless hint (L3)"),
    pytest.param(stamped_args(None, Stamp("j" * (MAX_JOB_ID_CHARS + 1), 0), KEY), id="an endless job id"),
    pytest.param(stamped_args(None, Stamp("job", 0, "x" * (2 * MAX_HINT_BYTES)), KEY), id="a hint over the limit, even signed"),
    pytest.param(stamped_args(None, STAMP, OTHER_PODS), id="another pod's signature"),
]


@pytest.mark.parametrize("extra", UNBELIEVED)
def test_nothing_else_is(extra: Any) -> None:
    assert read_stamp(extra, KEY) is None


def test_a_signed_priority_outside_the_levels_is_neutral() -> None:
    assert read_stamp(stamped_args(None, Stamp("job", pack_priority(-128, 0) * 2), KEY), KEY) == Stamp("job", NEUTRAL_PRIORITY)


def test_a_client_keeps_its_arguments_but_those_under_our_prefix() -> None:
    assert stamped_args({"alise_job": "mine", "alise_of_a_later_version": 1, "other": 2}, None, KEY) == {"other": 2}


VALUES = st.none() | st.integers() | st.text() | st.binary() | st.lists(st.text(max_size=3))


@given(st.dictionaries(st.sampled_from(["alise_job", "alise_hint", "alise_stamp"]), VALUES))
def test_no_value_breaks_the_reading(extra: dict[str, Any]) -> None:
    assert read_stamp(extra, KEY) is None


# --- where the engine is handed the request ----------------------------------------------------------------------------------------


class Client:
    """The engine's client: what it was handed, in order."""

    def __init__(self) -> None:
        self.handed: list[tuple[Any, dict[str, Any], int]] = []
        self.entered: list[Ticket] = []
        self.refuses = False
        self.add_request = stamping(self._add_request, KEY, self.entered.append)

    async def _add_request(self, request_id: str, prompt: Any, params: Params, priority: int = 0, **more: Any) -> str:
        if self.refuses:
            raise ValueError("the prompt is too long")
        self.handed.append((prompt, params.extra_args or {}, priority))
        return request_id


FORGED = {"alise_job": "mine", "alise_hint": "mine", "alise_stamp": "mine", "other": 1}


async def test_a_request_under_a_ticket_carries_its_stamp_whatever_the_client_sent() -> None:
    client = Client()
    CURRENT.set(Ticket(STAMP))
    assert await client.add_request("r", {}, Params(dict(FORGED)), priority=-99) == "r"
    [(_, extra, priority)] = client.handed
    assert (extra, priority) == ({**SIGNED, "other": 1}, STAMP.priority)


async def test_a_request_without_a_ticket_is_neutral_and_has_no_job() -> None:
    client = Client()
    await client.add_request("r", {}, Params(dict(FORGED)), priority=-99)
    assert client.handed == [({}, {"other": 1}, NEUTRAL_PRIORITY)]


async def test_a_task_started_meanwhile_carries_the_stamp_too() -> None:
    """A batch is a task per chat, a background response outlives its HTTP request."""
    client = Client()
    token = CURRENT.set(Ticket(STAMP))
    tasks = [asyncio.create_task(client.add_request("r", {}, Params(None))) for _ in range(3)]
    CURRENT.reset(token)
    await asyncio.gather(*tasks)
    assert [read_stamp(extra, KEY) for _, extra, _ in client.handed] == [STAMP] * 3
    assert client.entered[-1].engine_requests == 3


async def test_the_ticket_learns_which_lora_adapter_serves_the_request() -> None:
    ticket = Ticket(STAMP)
    CURRENT.set(ticket)
    await Client().add_request("r", {}, Params(None), lora_request=SimpleNamespace(lora_name="support"))
    assert ticket.adapter == "support"


async def test_a_request_that_the_engine_refuses_is_not_counted() -> None:
    client = Client()
    client.refuses = True
    ticket = Ticket(STAMP)
    CURRENT.set(ticket)
    with pytest.raises(ValueError, match="too long"):
        await client.add_request("r", {}, Params(None))
    assert (ticket.engine_requests, client.entered) == (0, [])


async def test_a_priority_given_by_position_is_an_error_and_not_a_way_around() -> None:
    with pytest.raises(TypeError, match="by name"):
        await Client().add_request("r", {}, Params(None), None, None, None, None, -99)


async def test_the_callers_prompt_is_left_as_it_is() -> None:
    client, prompt = Client(), {"type": "token"}
    CURRENT.set(Ticket(STAMP, cache_salt="salt"))
    await client.add_request("r", prompt, Params(None))
    assert (prompt, client.handed[0][0]) == ({"type": "token"}, {"type": "token", "cache_salt": "salt"})
