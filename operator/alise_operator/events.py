"""Posts events on an AliseEngine, which `kubectl describe` shows: one for each condition that changed, and warnings.

It writes to the cluster through kube.py. reconcile.py calls it after it has written the status; status.py decides what is worth an event.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from alise_contract.names import API_GROUP, API_VERSION, KIND
from alise_operator import metrics
from alise_operator.children.meta import MANAGER, Manifest, Owner
from alise_operator.conditions import Condition
from alise_operator.kube import Kube
from alise_operator.pods import EVENTS
from alise_operator.status import is_warning

# The API server refuses longer messages.
_MAX_MESSAGE: Final = 1000


def event(news: Condition, owner: Owner, *, now: datetime, suffix: str, warning: bool) -> Manifest:
    """Returns the Event. `suffix` makes its name unique."""
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        # At most 253 characters, of which the name of the AliseEngine takes up to 63.
        "metadata": {"name": f"{owner.name}.{suffix}", "namespace": owner.namespace},
        "involvedObject": {
            "apiVersion": f"{API_GROUP}/{API_VERSION}",
            "kind": KIND,
            "name": owner.name,
            "namespace": owner.namespace,
            "uid": owner.uid,
        },
        "type": "Warning" if warning else "Normal",
        "reason": news.reason,
        "message": news.message[:_MAX_MESSAGE],
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "reportingInstance": MANAGER,
        "action": news.type,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }


async def post(kube: Kube, conditions: Sequence[Condition], owner: Owner, *, now: datetime) -> None:
    """Posts an event for each condition that changed. Raises ApplyError, ClusterError."""
    for condition in conditions:
        await _create(kube, condition, owner, now=now, warning=is_warning(condition))


async def warn(kube: Kube, reason: str, message: str, owner: Owner, *, now: datetime) -> None:
    """Posts a warning that belongs to no condition. Raises ApplyError, ClusterError."""
    await _create(kube, Condition(reason, "True", reason, message), owner, now=now, warning=True)


async def note(kube: Kube, reason: str, message: str, owner: Owner, *, now: datetime) -> None:
    """Posts an event about something that is as it should be. Raises ApplyError, ClusterError."""
    await _create(kube, Condition(reason, "True", reason, message), owner, now=now, warning=False)


async def _create(kube: Kube, news: Condition, owner: Owner, *, now: datetime, warning: bool) -> None:
    manifest = event(news, owner, now=now, suffix=uuid.uuid4().hex[:16], warning=warning)
    await kube.create(EVENTS, manifest)
    metrics.EVENTS.labels(manifest["type"]).inc()
