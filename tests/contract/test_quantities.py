"""Quantities as Kubernetes reads them, sizes in bytes, and what is refused."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.quantities import format_bytes, memory_bytes, parse_quantity, quantity_bytes


@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param("0", Decimal(0), id="zero"),
        pytest.param("1.5", Decimal("1.5"), id="a fraction"),
        pytest.param(".5", Decimal("0.5"), id="a fraction without a leading zero"),
        pytest.param("300m", Decimal("0.3"), id="milli"),
        pytest.param("2k", Decimal(2000), id="decimal kilo"),
        pytest.param("4Gi", Decimal(4 * 2**30), id="binary giga"),
        pytest.param("1e3", Decimal(1000), id="an exponent"),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: str, number: Decimal) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize("text", ["", "4 Gi", "4GB", "-1", "Gi", "1e", "1e9999", "٣", "4Gi\n", "0x10"])
def test_what_is_no_quantity_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


@given(st.integers(min_value=0, max_value=2**60))
def test_formatting_bytes_loses_nothing(count: int) -> None:
    assert quantity_bytes(format_bytes(count)) == count


def test_half_a_byte_counts_as_one() -> None:
    assert quantity_bytes("500m") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "500m", "'500m' is not a quantity of bytes such as 4Gi, 500M or 1024; m stands for a thousandth of a byte", id="milli"
        ),
        pytest.param("500u", "'500u' is not a quantity of bytes such as 4Gi, 500M or 1024; u stands for a millionth of a byte", id="micro"),
        pytest.param("500n", "'500n' is not a quantity of bytes such as 4Gi, 500M or 1024; n stands for a billionth of a byte", id="nano"),
        pytest.param("0.5", "'0.5' is not a quantity of bytes such as 4Gi, 500M or 1024; it is less than one byte", id="half a byte"),
        pytest.param("5e-1", "'5e-1' is not a quantity of bytes such as 4Gi, 500M or 1024; it is less than one byte", id="an exponent"),
        pytest.param("lots", "'lots' is not a quantity of bytes such as 4Gi, 500M or 1024", id="no quantity"),
        pytest.param("", "'' is not a quantity of bytes such as 4Gi, 500M or 1024", id="nothing"),
    ],
)
def test_what_is_no_number_of_bytes_is_refused_with_an_example(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        memory_bytes(text)
    assert str(refused.value) == message


@pytest.mark.parametrize("text", ["0", "0.0", "0.5Gi", "1.5Gi", "500M", "1e9", "7"])
def test_any_other_size_is_the_quantity_in_bytes(text: str) -> None:
    assert memory_bytes(text) == quantity_bytes(text)


def test_more_bytes_than_kubernetes_counts_are_as_many_as_it_counts() -> None:
    assert quantity_bytes("1e999") == quantity_bytes("8Ei") == 2**63 - 1
    assert quantity_bytes("7Ei") == 7 * 2**60
