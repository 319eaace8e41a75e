"""The operator and the engine refuse the same flags."""

from typing import Any

import pytest

from alise_engine.compose import _UNSUPPORTED
from alise_engine.compose import CPU_KV_CACHE_DTYPES as ENGINE_CPU_KV_CACHE_DTYPES
from alise_operator.build.pod import EXIT_MARGIN_SECONDS
from alise_operator.errors import InvalidSpec
from alise_operator.flags import CPU_KV_CACHE_DTYPES, CUDA_KV_CACHE_DTYPES, MAX_SHUTDOWN_TIMEOUT_SECONDS
from alise_operator.rules import check
from tests.operator.builders import make_spec


@pytest.mark.parametrize(("dest", "unsupported"), [pytest.param(dest, test, id=dest) for dest, test, _ in _UNSUPPORTED])
def test_what_the_engine_does_not_support_is_refused_before_a_pod_is_made(dest: str, unsupported: Any) -> None:
    value = next(value for value in (2, "fcfs", True) if unsupported(value))
    flag = f"--{dest.replace('_', '-')}"
    spec = make_spec(engine={"device": "cpu", "args": [flag] if value is True else [flag, str(value)]})
    with pytest.raises(InvalidSpec, match=rf"spec.engine.args\[0\]: {flag}"):
        check(spec, "tiny")


def test_the_engine_and_the_operator_agree_on_a_cpus_kv_cache_dtypes() -> None:
    assert CPU_KV_CACHE_DTYPES == ENGINE_CPU_KV_CACHE_DTYPES


def test_vllm_ends_within_the_margin_of_the_grace_period() -> None:
    assert MAX_SHUTDOWN_TIMEOUT_SECONDS < EXIT_MARGIN_SECONDS


@pytest.mark.engine
def test_the_kv_cache_dtypes_of_cuda_are_those_of_vllm() -> None:
    from typing import get_args

    from vllm.config.cache import CacheDType

    assert get_args(CacheDType) == CUDA_KV_CACHE_DTYPES
