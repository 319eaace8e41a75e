"""Whose Gateway API the tests use: nothing is written into a cluster that is not ours."""

from typing import cast

import pytest

from tests.cluster.access import Access
from tests.cluster.errors import ClusterError
from tests.cluster.gateway import gateway_api


class Cluster:
    """An access that has some kinds and remembers what was applied."""

    def __init__(self, kinds: tuple[str, ...] = ()) -> None:
        self.kinds = kinds
        self.applied: list[str] = []

    def apply(self, manifest: dict[str, dict[str, str]]) -> None:
        self.applied.append(manifest["metadata"]["name"])

    def kubectl(self, *arguments: str) -> str:
        return next((f"crd/{kind}\n" for kind in self.kinds if kind in arguments), "")


NAMES = tuple(f"{kind}.gateway.networking.k8s.io" for kind in ("gatewayclasses", "gateways", "httproutes"))


def test_a_cluster_of_ours_gets_the_kinds() -> None:
    cluster = Cluster()
    gateway_api.ensure(cast(Access, cluster), belongs_to_user=False)
    assert cluster.applied == list(NAMES)


def test_nothing_is_written_into_the_users_own() -> None:
    cluster = Cluster()
    gateway_api.ensure(cast(Access, cluster), belongs_to_user=True)
    assert cluster.applied == []


def test_a_cluster_without_one_of_the_kinds_is_told_which() -> None:
    with pytest.raises(ClusterError, match=r"lacks the Gateway API \(httproutes"):
        gateway_api.require(cast(Access, Cluster(NAMES[:2])))


def test_a_cluster_with_them_is_fine() -> None:
    gateway_api.require(cast(Access, Cluster(NAMES)))
