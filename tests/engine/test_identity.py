"""Whose request it is and which class it has: an API key, and headers where they are trusted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.names import MAX_REQUEST_ID_CHARS, owner_of
from alise_engine.api.identity import MAX_LABEL_CHARS, Caller, Keyring, Rules, caller, digest, request_id, slo_ttft_ms

OBJECTIVE, FAIRNESS = "x-llm-d-inference-objective", "x-llm-d-inference-fairness-id"
KEYS = Keyring({digest("sk-a"): "team-a", digest("sk-b"): "team-b"})
CLASSES = frozenset({"gold", "größe"})
TRUSTING = Rules(CLASSES, {"team-a": "gold"}, trust_headers=True)
STRICT = Rules(CLASSES, {"team-a": "gold"})
A, B = {"authorization": "Bearer sk-a"}, {"authorization": "bearer sk-b"}

WHO = [
    pytest.param({}, None, STRICT, Caller("", ""), id="without keys every caller is anonymous"),
    pytest.param({FAIRNESS: "x", OBJECTIVE: "gold"}, None, STRICT, Caller("", ""), id="headers are ignored by default (R3)"),
    pytest.param({"authorization": "Bearer random"}, None, STRICT, Caller("", ""), id="an unverified key makes no tenant"),
    pytest.param({FAIRNESS: "x", OBJECTIVE: "gold"}, None, TRUSTING, Caller("x", "gold"), id="headers that a gateway sets"),
    pytest.param({OBJECTIVE: "platinum"}, None, TRUSTING, Caller("", ""), id="a class that there is not"),
    pytest.param({OBJECTIVE: "größe"}, None, TRUSTING, Caller("", "größe"), id="a class with an umlaut (A12)"),
    pytest.param(A, KEYS, STRICT, Caller("team-a", "gold"), id="a key has a tenant and a class"),
    pytest.param(B, KEYS, STRICT, Caller("team-b", ""), id="a tenant without a class has the default one"),
    pytest.param({**A, FAIRNESS: "team-b"}, KEYS, STRICT, Caller("team-a", "gold"), id="a tenant cannot call itself another (R3)"),
    pytest.param({**A, FAIRNESS: "team-b"}, KEYS, TRUSTING, Caller("team-a/team-b", "gold"), id="a part of a tenant stays within it"),
    pytest.param({**B, OBJECTIVE: "gold"}, KEYS, STRICT, Caller("team-b", ""), id="a class is not for the asking (R3)"),
    pytest.param({"x-api-key": "sk-a"}, KEYS, STRICT, Caller("team-a", "gold"), id="the header of Anthropic's clients"),
    pytest.param({}, KEYS, STRICT, None, id="no key"),
    pytest.param({"authorization": "Bearer sk-c"}, KEYS, STRICT, None, id="an unknown key"),
    pytest.param({"authorization": "Basic sk-a"}, KEYS, STRICT, None, id="another scheme"),
    pytest.param({"authorization": "Bearer "}, KEYS, STRICT, None, id="an empty key"),
    pytest.param(A, Keyring(), TRUSTING, None, id="if no key can be read, every request is refused"),
]


@pytest.mark.parametrize(("headers", "keyring", "rules", "who"), WHO)
def test_who_asks(headers: dict[str, str], keyring: Keyring | None, rules: Rules, who: Caller | None) -> None:
    assert caller(headers, keyring, rules) == who


OLD_NAMES = [
    pytest.param("x-gateway-inference-objective", "gold", Caller("", "gold"), id="the class"),
    pytest.param("x-gateway-inference-fairness-id", "team-a", Caller("team-a", ""), id="the tenant"),
]


@pytest.mark.parametrize(("header", "value", "who"), OLD_NAMES)
def test_the_headers_old_names_are_understood(header: str, value: str, who: Caller) -> None:
    """A12, R6."""
    assert caller({header: value}, None, TRUSTING) == who


def test_of_both_spellings_the_new_one_counts() -> None:
    assert caller({FAIRNESS: "new", "x-gateway-inference-fairness-id": "old"}, None, TRUSTING) == Caller("new")


def test_a_trusted_gateway_that_passes_keys_on_makes_a_tenant_of_each_and_never_shows_the_key() -> None:
    one, other = (caller({"authorization": f"Bearer {key}"}, None, TRUSTING) for key in ("secret", "other"))
    assert one is not None
    assert other is not None
    assert one != other
    assert (one.tenant.startswith("key-"), "secret" in one.tenant) == (True, False)


SLO = [
    pytest.param({"x-llm-d-slo-ttft-ms": "250"}, 250, id="milliseconds"),
    pytest.param({"x-slo-ttft-ms": "250"}, 250, id="the old name (R6)"),
    pytest.param({"x-llm-d-slo-ttft-ms": "soon"}, 0, id="a word"),
    pytest.param({"x-llm-d-slo-ttft-ms": "-5"}, 0, id="negative"),
    pytest.param({"x-llm-d-slo-ttft-ms": "9" * 10}, 2**32 - 1, id="enormous"),
    pytest.param({"x-llm-d-slo-ttft-ms": "9" * 5000}, 0, id="endless"),
    pytest.param({}, 0, id="none"),
]


@pytest.mark.parametrize(("headers", "milliseconds"), SLO)
def test_the_time_to_first_token_that_a_client_asks_for(headers: dict[str, str], milliseconds: int) -> None:
    assert slo_ttft_ms(headers) == milliseconds


def test_two_tenants_of_endless_names_stay_two_and_their_parts_are_theirs() -> None:
    names = ["t" * 150 + end for end in "ab"]
    keys = Keyring({digest(name): name for name in names})
    [a, b] = [caller({"x-api-key": name}, keys, STRICT) for name in names]
    part = caller({"x-api-key": names[0], FAIRNESS: "p" * 200}, keys, TRUSTING)
    assert a is not None
    assert b is not None
    assert part is not None
    assert a.tenant != b.tenant
    assert owner_of(part.tenant) == owner_of(a.tenant)
    assert max(len(who.tenant) for who in (a, b, part)) <= MAX_LABEL_CHARS


NAMES = st.sampled_from(["authorization", "x-api-key", OBJECTIVE, FAIRNESS, "x-gateway-inference-objective", "x-slo-ttft-ms"])
TEXT = st.text(alphabet=st.characters(categories=["L", "N", "P", "Z", "Cs", "Cc"]), max_size=200)


@given(st.dictionaries(NAMES, TEXT | st.sampled_from(["Bearer sk-a", "gold"])), st.booleans(), st.booleans())
def test_no_header_breaks_it_or_leads_to_another_tenant(headers: dict[str, str], keyed: bool, trusted: bool) -> None:
    slo_ttft_ms(headers)
    who = caller(headers, KEYS if keyed else None, TRUSTING if trusted else STRICT)
    if who is not None:
        assert len(who.tenant) <= MAX_LABEL_CHARS
        assert who.klass in {"", *CLASSES}
        assert not keyed or who.tenant.split("/")[0] in {"team-a", "team-b"}


IDS = [
    pytest.param("req-7", "req-7", id="as sent"),
    pytest.param("00-4bf92f3577b34da6a3ce929d0e0e4736/1?x=[]", "00-4bf92f3577b34da6a3ce929d0e0e4736/1?x=[]", id="any printable characters"),
    pytest.param(" req-7 ", "req-7", id="without the spaces around it"),
    pytest.param("x" * MAX_REQUEST_ID_CHARS, "x" * MAX_REQUEST_ID_CHARS, id="as long as it may be"),
    pytest.param("x" * (MAX_REQUEST_ID_CHARS + 1), "", id="too long"),
    pytest.param("a b", "", id="a space"),
    pytest.param("a\tb", "", id="a control character"),
    pytest.param("größe", "", id="other letters"),
    pytest.param("", "", id="empty"),
]


@pytest.mark.parametrize(("sent", "used"), IDS)
def test_the_clients_id_of_its_request(sent: str, used: str) -> None:
    assert request_id({"x-request-id": sent}) == used
