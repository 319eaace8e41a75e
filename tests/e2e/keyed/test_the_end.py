"""The last test of this folder: pytest runs a folder's files in the order of their names."""

import pytest

from tests.cluster.resource import Resource, wait_until
from tests.e2e.support import children

pytestmark = pytest.mark.e2e


def test_deleting_a_serving_resource_leaves_nothing(keyed: Resource) -> None:
    keyed.wait_condition("Ready", "True", 60)
    assert children(keyed)
    keyed.kubectl("delete", "alise", keyed.name, "--wait=true")
    wait_until("every child gone", lambda: not children(keyed), 180)
