"""Posts events on an AliseEngine, which `kubectl describe` shows: one for each condition that changed, and warnings.

It writes to the cluster through kube.py. reconcile.py warns of restored children as soon as they are applied, and announces the changes
that status.py names once the status is written; autoscaler.py calls `note()` after each scaling.
"""

import logging
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from alise_contract.names import API_GROUP, API_VERSION, KIND
from alise_operator import metrics
from alise_operator.children.meta import MANAGER, Manifest, Owner
from alise_operator.conditions import Condition
from alise_operator.errors import ApplyError, ClusterError
from alise_operator.kube import Kube
from alise_operator.pods import EVENTS
from alise_operator.status import is_warning

log = logging.getLogger(__name__)

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


async def announce(kube: Kube, conditions: Sequence[Condition], owner: Owner, *, now: datetime) -> None:
    """Logs each condition that changed and posts an event for it."""
    for condition in conditions:
        log.info(
            condition.message,
            extra={"engine": _place(owner), "condition": condition.type, "status": condition.status, "reason": condition.reason},
        )
    await _post(kube, [(condition, is_warning(condition)) for condition in conditions], owner, now=now)


async def warn_of(kube: Kube, news: Sequence[tuple[str, str]], owner: Owner, *, now: datetime) -> None:
    """Posts a warning that belongs to no condition for each reason and message."""
    await _post(kube, [(Condition(reason, "True", reason, message), True) for reason, message in news], owner, now=now)


async def _post(kube: Kube, news: Sequence[tuple[Condition, bool]], owner: Owner, *, now: datetime) -> None:
    """Posts the events. A failure is only logged: the status says as much, so a missing event is not worth another reconcile."""
    try:
        for condition, warning in news:
            await _create(kube, condition, owner, now=now, warning=warning)
    except (ApplyError, ClusterError) as error:
        log.warning("an event could not be posted", extra={"engine": _place(owner), "error": str(error)})


async def note(kube: Kube, reason: str, message: str, owner: Owner, *, now: datetime) -> None:
    """Posts an event about something that is as it should be. Raises ApplyError, ClusterError."""
    await _create(kube, Condition(reason, "True", reason, message), owner, now=now, warning=False)


def _place(owner: Owner) -> str:
    return f"{owner.namespace}/{owner.name}"


async def _create(kube: Kube, news: Condition, owner: Owner, *, now: datetime, warning: bool) -> None:
    manifest = event(news, owner, now=now, suffix=uuid.uuid4().hex[:16], warning=warning)
    await kube.create(EVENTS, manifest)
    metrics.EVENTS.labels(manifest["type"]).inc()
