"""Finds the Secret that a pod waits for in the kubelet's message, and explains which field requests it and how to create it.

Pure, and the operator itself reads no Secret. The kubelet names the Secret, and the key if only that is missing. observation.py looks for
a gap in each message; status.py has it explained with the fields of the spec.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from alise_operator.children.meta import Owner
from alise_operator.spec import Spec

REASON: Final = "MissingSecret"
# `secret "hub" not found`, for a container that cannot be created (environment) or a volume that cannot be mounted.
_SECRET: Final = re.compile(r'\bsecrets? "(?P<name>[-a-z0-9.]{1,253})" not found')
# `couldn't find key token in Secret default/hub` (environment).
_KEY: Final = re.compile(r"couldn't find key (?P<key>[-._a-zA-Z0-9]{1,253}) in Secret [-a-z0-9]+/(?P<name>[-a-z0-9.]{1,253})")
# The placeholder for the name of an entry in the command that creates a Secret of API keys.
_AUTH_KEY: Final = "TENANT"
_AUTH_FIELD: Final = "spec.auth.secretRef"
_API_KEYS: Final = "one entry per tenant: the entry's name is the tenant's name, and its value holds the tenant's API keys, one per line"


@dataclass(frozen=True, slots=True)
class Gap:
    """A Secret that does not exist or, if there is a key, a Secret without that key."""

    name: str
    key: str = ""


def gap(words: str) -> Gap | None:
    """Returns the Secret that the kubelet does not find; None if its message is about something else."""
    if (found := _KEY.search(words)) is not None:
        return Gap(found["name"], found["key"])
    if (found := _SECRET.search(words)) is not None:
        return Gap(found["name"])
    return None


def explain(missing: Gap, spec: Spec | None, owner: Owner) -> str:
    """Returns which field requests the Secret, and the command that creates it."""
    asked = [(field, key) for field, name, key in _references(spec) if name == missing.name] if spec is not None else []
    # If several fields name the Secret, take the one that requests the missing key.
    field, key = next(((field, key) for field, key in asked if missing.key in ("", key)), asked[0] if asked else ("", ""))
    where = f"{field}: " if field else ""
    secret = f"Secret {owner.namespace}/{missing.name}"
    if missing.key:
        # The Secret's other keys are not named: the author of a resource may not be allowed to read the namespace's Secrets.
        patch = f'kubectl patch secret {missing.name} -n {owner.namespace} -p \'{{"stringData": {{"{missing.key}": "…"}}}}\''
        return f"{where}{secret} has no key {missing.key!r}; add it ({patch}), or name another key; the pod starts by itself after that"
    create = f"kubectl create secret generic {missing.name} -n {owner.namespace} --from-literal={key or 'KEY'}=…"
    entries = f" ({_API_KEYS})" if field == _AUTH_FIELD else ""
    return f"{where}{secret} does not exist; create it: {create}{entries}; the pod starts by itself once the Secret exists"


def _references(spec: Spec) -> Iterator[tuple[str, str, str]]:
    """Yields (field, Secret, key) for each Secret that the AliseEngine names; the key is empty if a whole Secret is named."""
    postgres = spec.predictor.history.postgres
    for field, reference in (
        ("spec.model.tokenSecretRef", spec.model.token_secret_ref),
        ("spec.predictor.history.postgres.dsnSecretRef", postgres.dsn_secret_ref if postgres else None),
        ("spec.predictor.history.postgres.keySecretRef", postgres.key_secret_ref if postgres else None),
    ):
        if reference is not None:
            yield field, reference.name, reference.key
    if spec.auth is not None:
        yield _AUTH_FIELD, spec.auth.secret_ref.name, _AUTH_KEY
    for index, variable in enumerate(spec.engine.env):
        reference = (variable.value_from or {}).get("secretKeyRef")
        if isinstance(reference, dict):
            yield f"spec.engine.env[{index}]", str(reference.get("name")), str(reference.get("key"))
    yield from _in_patch("spec.podTemplate", spec.pod_template)


def _in_patch(path: str, node: Any) -> Iterator[tuple[str, str, str]]:
    """Yields the Secrets that a pod patch names, wherever a pod may name one."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            name = item.get("name") if isinstance(item, dict) else None
            yield from _in_patch(f"{path}[{name if isinstance(name, str) else index}]", item)
    elif isinstance(node, dict):
        for key, child in node.items():
            if isinstance(child, dict) and key in ("secretKeyRef", "secretRef", "secret"):
                yield path, str(child.get("name") or child.get("secretName")), str(child.get("key") or "")
            else:
                yield from _in_patch(f"{path}.{key}", child)
