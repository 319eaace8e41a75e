"""What a pod may answer when it is asked for its status: a good report that was changed, or anything at all; and what must hold then.

`test_fuzzed_reports.py` and `tests/bench/fuzz.py` use it.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any, Final

from hypothesis import strategies as st

from alise_operator import polls
from alise_operator.observation import Observation
from alise_operator.pod_answer import MAX_BODY_BYTES, read_answer
from alise_operator.status import fold
from tests.operator.builders import OWNER, make_pod, make_spec, make_workload
from tests.operator.fuzz.properties import MAX_MESSAGE, Broken
from tests.operator.fuzz.values import JSON, TEXTS, Values

_GOOD: Final = {
    "contract_version": 1,
    "boot_id": "boot-1",
    "sidecar": {
        "connected": True,
        "plan_fresh": True,
        "contract_refused": False,
        "refused_contract_version": 0,
        "encoder": "ENCODER_STATE_READY",
    },
    "admission": {"recent_requests": "12", "recent_failed_open": "3", "failed_open_by_reason": {"deadline": "3", "error": "1"}},
    "kv": {"limit_tokens": "30720", "used_tokens": "30000", "bits": 16},
    "host_memory": {"limit_bytes": "1073741824", "used_bytes": "1070000000"},
}
# Texts of JSON that Python's own parser takes, or fails at, in ways of its own.
_ODD_JSON: Final = (
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 5000, "1" + "0" * 300, "1.0", "1.5", "-0", "-1", "18446744073709551615",
    "18446744073709551616", "4294967296", "true", "null", '""', '"12"', '"1e3"', '"0x10"', '"NaN"', '"\\ud800"', '"\\u0000"',
    '"\\u001b[31m"',
    '"' + "x" * 40_000 + '"', "[]", "{}", "[" * 40 + "]" * 40, "[" * 31 + "]" * 31, '{"a":' * 25 + "1" + "}" * 25,
    '"ENCODER_STATE_MISSING"',
    '"ENCODER_STATE_X"', "2", "99",
)  # fmt: skip
_PLACES: Final = [
    (),
    *((name,) for name in _GOOD),
    *((name, key) for name, inner in _GOOD.items() if isinstance(inner, dict) for key in inner),
]
_MARK: Final = "\x02place\x02"


@st.composite
def _changed(draw: st.DrawFn) -> bytes:
    """A good report with one to three places that say something else, as text, so that what no JSON library writes is there as well."""
    report: Any = json.loads(json.dumps(_GOOD))
    texts = []
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(_PLACES))
        holder = report
        for key in place[:-1]:
            holder = holder[key] if isinstance(holder, dict) and key in holder else report
        texts.append(draw(st.sampled_from(_ODD_JSON) | JSON.map(json.dumps)))
        name = place[-1] if place else draw(TEXTS)
        if isinstance(holder, dict):
            holder[name] = f"{_MARK}{len(texts) - 1}{_MARK}"
    text = json.dumps(report)
    for number, odd in enumerate(texts):
        text = text.replace(json.dumps(f"{_MARK}{number}{_MARK}"), odd)
    if draw(st.integers(0, 5)) == 0:
        # A key twice.
        text = text.replace("{", '{"contract_version": ' + draw(st.sampled_from(_ODD_JSON)) + ", ", 1)
    return text.encode()


@st.composite
def _many_reasons(draw: st.DrawFn) -> bytes:
    count = draw(st.sampled_from((1, 6, 33, 1000)))
    reasons = {draw(TEXTS) + str(number): draw(st.integers(0, 2**64)) for number in range(min(count, 3))}
    reasons |= {f"\x1b[31m{number}\n": number for number in range(count)}
    return json.dumps(_GOOD | {"admission": {"recent_requests": 9, "recent_failed_open": 9, "failed_open_by_reason": reasons}}).encode()


@st.composite
def _broken(draw: st.DrawFn) -> bytes:
    """Cut off, with bytes in it that are no text, or nothing of the kind."""
    good = draw(_changed())
    cut = good[: draw(st.integers(0, len(good)))]
    wild = draw(st.sampled_from((b"", b"\x00", b"\xff\xfe", b"<html>", b"[" * 60_000, b'"' * 101, b" " * (MAX_BODY_BYTES + 1), b"\\" * 99)))
    return draw(st.sampled_from((cut, cut + wild, wild + good, wild, draw(st.binary(max_size=40)))))


_ANSWER: Final = st.tuples(
    st.sampled_from((200, 200, 200, 200, 200, 204, 302, 404, 500, 599)),
    st.sampled_from(("", "", "", "identity", "IDENTITY ", "gzip", "br", "\x1b", "x" * 4000)),
    st.one_of(st.just(json.dumps(_GOOD).encode()), _changed(), _changed(), _many_reasons(), _broken()),
)
# What one pod answers to polls one after the other, in a form that JSON can hold.
ANSWERS: Final[Values] = st.lists(_ANSWER.map(lambda one: [one[0], one[1], one[2].decode("latin-1")]), min_size=1, max_size=4)


def answers_become_conditions(answers: Any) -> None:
    """An answer is a report or a ValueError, and whatever it says, conditions stay short, printable and JSON."""
    poll: polls.Poll | None = None
    previous: dict[str, Any] = {}
    for turn, (status, encoding, body) in enumerate(answers):
        try:
            poll = polls.answered(poll, read_answer(status, encoding, body.encode("latin-1")), 30.0 * turn)
        except ValueError as error:
            _expect(0 < len(str(error)) <= 500, f"an error of {len(str(error)):,} characters")
            _expect(str(error).isprintable(), f"an error that is not printable: {str(error)!r}"[:500])
            poll = polls.failed(poll, str(error), 30.0 * turn)
        pod = make_pod(
            report=poll.report,
            report_error=poll.error,
            unranked_polls=poll.unranked,
            host_full=poll.host_full,
            failed_open_reasons=tuple(poll.recent_failed_open),
        )
        seen = Observation(make_workload(replicas=1, ready=1), (pod, make_pod(name="tiny-2", uid="uid-2")))
        previous = fold(
            spec=make_spec(),
            owner=OWNER,
            generation=1,
            error=None,
            observation=seen,
            previous=previous,
            now=datetime(2026, 1, 1, tzinfo=UTC),
        )
        json.dumps(previous, allow_nan=False)
        for one in previous["conditions"]:
            _expect(0 < len(one["message"]) <= MAX_MESSAGE, f"a message of {len(one['message']):,} characters")
            _expect(one["message"].isprintable(), f"a message that is not printable: {one['message']!r}"[:500])
            _expect(re.fullmatch("[A-Za-z]+", one["reason"]), f"a reason that is no word: {one['reason']}")
        ready = next(one for one in previous["conditions"] if one["type"] == "Ready")
        _expect(ready["status"] == "True", "what a pod says of itself takes the resource out of service")


def _expect(holds: object, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)
