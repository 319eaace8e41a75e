"""Fuzzed specs: the operator never crashes, never half-applies, and every refusal names its field. `make bench-fuzz` tries 10,000."""

from typing import Any

import pytest

from alise_operator.errors import SpecError
from alise_operator.spec import parse
from tests.cluster.control_plane import ControlPlane
from tests.operator.fuzz.agreement import agreement
from tests.operator.fuzz.properties import PROPERTIES, Broken
from tests.operator.fuzz.run import Outcome, fuzz, fuzz_specs
from tests.operator.fuzz.specs import ANY_SPECS

SPECS = 300
ON_AN_API_SERVER = 60


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """Always the same specs: a finding of today is one of yesterday's code or of today's change."""
    return fuzz_specs(SPECS, seed=13)


@pytest.mark.process
@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_holds_for_every_fuzzed_spec(outcome: Outcome, name: str) -> None:
    assert outcome.tried >= SPECS
    assert [finding for finding in outcome.findings.values() if finding.name == name] == []


@pytest.mark.process
def test_fuzzed_specs_are_taken_and_refused() -> None:
    taken: list[bool] = []

    def tried(raw: Any) -> None:
        try:
            parse(raw)
            taken.append(True)
        except SpecError:
            taken.append(False)

    fuzz(ANY_SPECS, {"tried": tried}, 100, seed=13)
    assert 25 <= sum(taken) <= 90


@pytest.mark.process
def test_a_planted_fault_is_found_and_made_small() -> None:
    def no_patches(raw: Any) -> None:
        if isinstance(raw, dict) and raw.get("podTemplate"):
            raise Broken("planted")

    outcome = fuzz(ANY_SPECS, {"planted": no_patches}, 60, seed=13)
    (found,) = outcome.findings.values()
    assert outcome.tried == 60
    assert found.error == "Broken: planted"
    assert set(found.input) == {"model", "engine", "podTemplate"}


@pytest.mark.controlplane
def test_the_api_server_and_the_operator_agree_on_fuzzed_specs(control_plane: ControlPlane) -> None:
    with agreement(control_plane.kubeconfig) as properties:
        assert fuzz(ANY_SPECS, properties, ON_AN_API_SERVER, seed=13).findings == {}
