"""What the operator makes of kopf's end."""

import asyncio

import pytest

from alise_operator.__main__ import ended
from alise_operator.errors import ApplyError, Gone


async def fails(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ApplyError("ServiceAccount tiny: the namespace is gone"), id="a refused child"),
        pytest.param(Gone("namespaces not found", status=404), id="an object that is gone"),
        pytest.param(asyncio.CancelledError(), id="cancelled"),
    ],
)
async def test_what_the_end_interrupts_is_no_failure_of_the_operator(error: BaseException) -> None:
    await ended(asyncio.create_task(fails(error)))


async def test_kopfs_own_failure_is_one() -> None:
    with pytest.raises(RuntimeError, match="kopf is broken"):
        await ended(asyncio.create_task(fails(RuntimeError("kopf is broken"))))
