"""Which operator's pod has the page."""

from typing import Any

import pytest

from kubectl_alise.errors import NotFoundError
from kubectl_alise.operator_pod import leader

Object = dict[str, Any]


def pod(name: str, created: str = "2026-11-29T10:00:00Z", ready: bool = True, **meta: Any) -> Object:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": {"name": name, "creationTimestamp": created, **meta}, "status": {"conditions": conditions}}


def lease(holder: str | None) -> Object:
    return {"spec": {"holderIdentity": holder}}


OLD, NEW = pod("op-1"), pod("op-2", "2026-11-29T12:00:00Z")


def test_it_is_that_of_the_operator_that_acts() -> None:
    assert leader([OLD, NEW], lease("op-1_5f0c1a"), "alise-system") == "op-1"


@pytest.mark.parametrize("held", [None, lease(None), lease("gone_5f0c1a"), lease(""), {}], ids=["unread", "free", "gone", "empty", "none"])
def test_it_is_the_newest_if_the_lease_names_none(held: Object | None) -> None:
    assert leader([OLD, NEW], held, "alise-system") == "op-2"


def test_a_pod_that_ends_or_starts_is_not_it() -> None:
    pods = [pod("op-3", deletionTimestamp="2026-11-29T12:00:00Z"), pod("op-4", ready=False), OLD]
    assert leader(pods, lease("op-3_5f0c1a"), "alise-system") == "op-1"


def test_no_operator_is_named() -> None:
    with pytest.raises(NotFoundError, match="there is no operator in the namespace alise-system: give its namespace with -n"):
        leader([], None, "alise-system")


def test_an_operator_that_is_not_ready_is_named() -> None:
    with pytest.raises(NotFoundError, match="the operator is not ready: `kubectl -n team describe pod op-4` says why"):
        leader([pod("op-4", ready=False)], None, "team")
