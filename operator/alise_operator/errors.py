"""The errors of the operator. Pure. Any module may raise them; what none handles on the way, reconcile.py reports or app.py retries.

    OperatorError
    ├── SpecError            the spec requests something that cannot be done; only replicas and suspend were applied
    │   ├── InvalidSpec        a field has a value that is not allowed
    │   └── MissingApi         the cluster does not serve an API that the spec requires
    ├── ApplyError           the cluster refused a call: a child that is not valid, or a right that is missing
    │   └── NameTaken          an object with that name exists and belongs to another owner
    ├── ClusterError         the API server failed or could not be reached; retried with backoff
    │   ├── Gone               the object does not exist (any more)
    │   ├── AnswerTooLarge     an answer of the API server that is too large to read
    │   └── LeaseLost          another operator acts now, or may act
    └── InternalError        a bug in the operator; reported on the AliseEngine, logged, retried

An error that is reported on the AliseEngine has a one-word reason, which becomes the condition's reason. Its text becomes the message: it
states what is wrong, with which value, and what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

# A field contains keys that the user wrote, and a text may quote a value. Neither may hide the other problems.
_MAX_FIELD: Final = 300
_MAX_TEXT: Final = 600


class OperatorError(Exception):
    reason: ClassVar[str] = "InternalError"


class SpecError(OperatorError):
    pass


@dataclass(frozen=True, slots=True)
class Problem:
    """One invalid field: its path, its value, and what is allowed or what to do."""

    field: str
    text: str

    def __str__(self) -> str:
        return f"{one_line(self.field, _MAX_FIELD)}: {one_line(self.text, _MAX_TEXT)}"


def one_line(text: str, most: int) -> str:
    """Returns at most `most` characters of the text, with a space for each control character, so that any terminal can show it."""
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return cut if cut.isprintable() else "".join(char if char.isprintable() else " " for char in cut)


class InvalidSpec(SpecError):
    reason = "InvalidSpec"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


class MissingApi(SpecError):
    reason = "MissingApi"


class ApplyError(OperatorError):
    reason = "ApplyFailed"


class NameTaken(ApplyError):
    reason = "NameTaken"


class ClusterError(OperatorError):
    reason = "ClusterUnavailable"

    def __init__(self, text: str, *, status: int = 0) -> None:
        super().__init__(text)
        self.status = status

    @property
    def is_failure(self) -> bool:
        """Whether the server, a webhook or its store failed or hung, which is reported and not only retried."""
        return self.status >= 500


class Gone(ClusterError):
    pass


class AnswerTooLarge(ClusterError):
    pass


class LeaseLost(ClusterError):
    pass


class InternalError(OperatorError):
    reason = "InternalError"
