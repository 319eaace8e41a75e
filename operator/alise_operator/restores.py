"""Remembers what other writers changed on children until the operator has restored it, and words the events that say so.

reconcile.py calls it and posts the events. drift.py finds the fields, and replicas.py words a changed number of pods. Writers that fight
with the operator over a child cause an event now and then, not one at each round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from alise_contract.names import ENGINE_LABEL, KIND
from alise_operator.apply import Applied, generation_of, resource_version_of
from alise_operator.children.meta import Manifest, Owner
from alise_operator.drift import edited_fields, writer_of
from alise_operator.reads import is_newer
from alise_operator.refusals import source_of
from alise_operator.replicas import REASON as REPLICAS_RESET
from alise_operator.replicas import REPEAT_SECONDS, Reset, reset_by, reset_message

REASON: Final = "ChildRestored"
# Events for one AliseEngine in REPEAT_SECONDS, if a writer changes something else each time.
MOST_EVENTS: Final = 10
_MOST_FIELDS: Final = 5
_LABELS: Final = "metadata.labels"

Child = tuple[str, str]


@dataclass(frozen=True, slots=True)
class News:
    """An event to post."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """A child as the watch showed it while children were applied; without a version if it was deleted."""

    child: Mapping[str, Any]
    version: str | None


@dataclass(frozen=True, slots=True)
class _Edit:
    """A child as another writer left it, and the digest of the manifests that were applied before."""

    seen: Mapping[str, Any]
    digest: str
    deleted: bool


@dataclass(slots=True)
class _Account:
    """What is known of one AliseEngine."""

    edits: dict[Child, _Edit] = field(default_factory=dict)
    # What was applied before the edits.
    applied: Applied | None = None
    reset: Reset | None = None
    messages: list[str] = field(default_factory=list)
    # When each message was posted; of a number of pods, its reason.
    posted_at_seconds: dict[str, float] = field(default_factory=dict)


class Restores:
    """Has an account for each AliseEngine whose children another writer has changed, by its uid."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def keep(self, uids: set[str]) -> None:
        """Forgets all AliseEngines but these."""
        self._accounts = {uid: account for uid, account in self._accounts.items() if uid in uids}

    def note(self, owner: Owner, kind: str, child: Mapping[str, Any], applied: Applied, *, deleted: bool) -> None:
        """Notes a child that another writer has changed since it was applied."""
        key = kind, child["metadata"]["name"]
        if not deleted and generation_of(child) < applied.generations.get(key, 0):
            # The watch is behind: this is what the operator itself had applied before.
            return
        account = self._accounts.setdefault(owner.uid, _Account())
        account.edits[key], account.applied = _Edit(child, applied.digest, deleted), applied
        # The endpoint picker has a Deployment, too.
        if key == ("Deployment", owner.name) and not deleted and applied.scale is not None:
            account.reset = reset_by(child, applied.scale) or account.reset

    def note_meanwhile(self, owner: Owner, meanwhile: Mapping[Child, Meanwhile], applied: Applied) -> bool:
        """Notes the children that another writer has changed while they were applied, and returns whether all are as they were applied.

        The watch also shows the operator's own writes of that time, so only what is newer than the answer to the last of them counts.
        """
        others = {key: seen for key, seen in meanwhile.items() if key in applied.versions and applied.versions[key] != seen.version}
        for key, seen in others.items():
            if seen.version is None or is_newer(resource_version_of(seen.child), applied.written.get(key, "")):
                self.note(owner, key[0], seen.child, applied, deleted=seen.version is None)
        return not others

    def applied(self, uid: str) -> Applied | None:
        """Returns what was applied before the first of the changes that have not been restored yet; None if there are none."""
        account = self._accounts.get(uid)
        return account.applied if account is not None else None

    def compare(self, owner: Owner, digest: str, manifest: Manifest, answer: Mapping[str, Any]) -> None:
        """Compares a child that was applied just now with the one that another writer had left."""
        key = manifest["kind"], manifest["metadata"]["name"]
        account = self._accounts.get(owner.uid)
        edit = account.edits.pop(key, None) if account is not None else None
        # If the manifests have changed as well, a difference may be the operator's own.
        if account is not None and edit is not None and edit.digest == digest:
            message = _message(key, edit, manifest, answer, owner)
            # An apply that never ends well, and a writer that does not give up, would add the same again and again.
            account.messages += [message] if message and message not in account.messages else []

    def news(self, owner: Owner, applied: Applied, *, suspended: bool, now_seconds: float) -> list[News]:
        """Returns the events to post, none of them twice in REPEAT_SECONDS."""
        account = self._accounts.pop(owner.uid, None)
        if account is None:
            return []
        posted = {what: at for what, at in account.posted_at_seconds.items() if now_seconds - at < REPEAT_SECONDS}
        found: list[News] = []
        wanted = applied.scale.replicas if applied.scale is not None else None
        if account.reset is not None and wanted is not None and wanted != account.reset.found and REPLICAS_RESET not in posted:
            posted[REPLICAS_RESET] = now_seconds
            found.append(News(REPLICAS_RESET, reset_message(replace(account.reset, wanted=wanted), owner, suspended=suspended)))
        for message in account.messages:
            if message not in posted and len(posted) < MOST_EVENTS:
                posted[message] = now_seconds
                found.append(News(REASON, message))
        if posted:
            self._accounts[owner.uid] = _Account(posted_at_seconds=posted)
        return found


def _message(key: Child, edit: _Edit, manifest: Manifest, answer: Mapping[str, Any], owner: Owner) -> str | None:
    """Returns the message of the event; None if nothing was restored but the number of pods, which has its own."""
    kind, name = key
    if edit.deleted and edit.seen["metadata"].get("uid") != answer["metadata"].get("uid"):
        return f"{kind} {name} was deleted and has been created again, because the {KIND} needs it{_without(key, owner)}"
    # A watch reports an object that has lost the label that it selects as deleted.
    fields = [_LABELS] if edit.deleted else edited_fields(manifest, edit.seen, answer)
    fields = [one for one in fields if (*key, one) != ("Deployment", owner.name, "spec.replicas")]
    if not fields:
        return None
    writer = writer_of(edit.seen, fields)
    by = f" by {writer}" if writer else ""
    more = f" and {len(fields) - _MOST_FIELDS} more" if len(fields) > _MOST_FIELDS else ""
    shown = ", ".join(fields[:_MOST_FIELDS]) + more
    return f"{kind} {name} was changed{by} and has been restored ({shown}); {_instead(key, fields, owner)}"


def _instead(key: Child, fields: Sequence[str], owner: Owner) -> str:
    """Returns what to change instead of the child."""
    kind, name = key
    sources = [source_of(kind, one) for one in fields] if name == owner.name else ["spec.routing.endpointPicker"]
    known = list(dict.fromkeys(source for source in sources if source is not None))
    if known:
        return f"change {', and '.join(known)} of the {KIND} instead: kubectl edit alise {owner.name} -n {owner.namespace}"
    if kind == "Service":
        return f"for other ports or another type, create a Service of your own with the selector {ENGINE_LABEL}: {owner.name}"
    if kind == "PodDisruptionBudget":
        return "the budget lets one pod at a time be evicted, and exists while spec.replicas is at least 2"
    return f"no field of the {KIND} changes it"


def _without(key: Child, owner: Owner) -> str:
    """Returns how to do without a child that was deleted; empty if there is no way."""
    kind, name = key
    source = source_of(kind, "spec") if name == owner.name else "spec.routing.endpointPicker"
    if key == ("Deployment", owner.name):
        return "; to stop all pods, set spec.suspend to true"
    return f"; to do without it, change {source}" if source is not None else ""
