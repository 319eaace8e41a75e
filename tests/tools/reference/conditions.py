"""The page of conditions and events, from the operator's table of reasons. `__main__.py` writes it to docs/reference/conditions.md."""

from collections.abc import Iterable

from alise_operator import reasons
from alise_operator.reasons import Reason
from tests.tools.reference.page import code, page, prose, table


def render() -> str:
    """Returns the page: the conditions, the reasons of Degraded, those of the others, and events."""
    return page(
        "Conditions and events",
        "operator/alise_operator/reasons.py",
        prose(
            "An [AliseEngine](aliseengine.md) reports its state in conditions, printed by `kubectl describe alise`. The reason is "
            "one of the words below. The message gives the state, its cause and what to do. [Troubleshooting](../troubleshooting.md) "
            "starts from symptoms instead."
        ),
        ["## Conditions", "", *table(("condition", "True means"), ((code(name), meaning) for name, meaning in reasons.TYPES.items()))],
        ["`kubectl wait --for=condition=Ready alise/NAME` waits until pods serve requests."],
        [
            "## Reasons of Degraded",
            "",
            *prose(
                "If several things are wrong, the first one in this order is the reason, and the message describes all of them. The other "
                "conditions can have these reasons too when they are not True."
            ),
            "",
            "### The spec is not applied",
            "",
            *prose("Pods of the last valid spec keep serving. Only `replicas` and `suspend` are applied."),
            "",
            *_table(reasons.UNAPPLIED),
            "",
            "### Pods and routes",
            "",
            *_table(reasons.TROUBLES),
        ],
        [
            "## Reasons of the other conditions",
            "",
            *table(
                ("condition", "status", "reason", "meaning"),
                (
                    (code(kind), status, code(one.name), " ".join(filter(None, (one.meaning, one.remedy))))
                    for (kind, status), found in reasons.OTHERS.items()
                    for one in found
                ),
            ),
        ],
        [
            "## Events",
            "",
            *prose(
                "The operator posts an event on the resource when a condition gets another status or reason. The event has the condition's "
                "reason and message. Its type is `Warning` if Degraded became True, and `Normal` otherwise. These events follow from no "
                "condition:"
            ),
            "",
            *_table(reasons.EVENTS),
        ],
    )


def _table(found: Iterable[Reason]) -> list[str]:
    return table(("reason", "meaning", "what to do"), ((code(one.name), one.meaning, one.remedy) for one in found))
