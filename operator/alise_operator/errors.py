"""The errors of the operator.

    OperatorError
    ├── SpecError            the resource asks for something that cannot be done; nothing was applied
    │   ├── InvalidSpec        a field has a value that is not allowed
    │   └── MissingApi         the cluster does not serve an API that the resource needs
    ├── ApplyError           the cluster refused a child
    │   └── NameTaken          an object of that name exists and is not ours
    ├── ClusterError         the API server could not be asked; tried again with backoff
    │   ├── Gone               the object is not there (any more)
    │   ├── AnswerTooLarge     an answer of the API server that is not read to its end
    │   └── LeaseLost          another operator acts now, or may
    └── InternalError        a bug of the operator's; said on the resource, logged, tried again

Every error that is reported on the resource carries the one-word reason that becomes the condition's reason, and its text becomes the
message: it says what is wrong, with which value, and what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

# A field has the names of keys that the user wrote, and a text may quote a value: neither may crowd out what else is wrong.
_MAX_FIELD: Final = 300
_MAX_TEXT: Final = 600


class OperatorError(Exception):
    reason: ClassVar[str] = "InternalError"


class SpecError(OperatorError):
    pass


@dataclass(frozen=True, slots=True)
class Problem:
    """One field that is wrong: where, what was found, and what is allowed or to be done."""

    field: str
    text: str

    def __str__(self) -> str:
        return f"{one_line(self.field, _MAX_FIELD)}: {one_line(self.text, _MAX_TEXT)}"


def one_line(text: str, most: int) -> str:
    """Returns the beginning of the text, with a blank for each control character, so that a terminal shows it as it is."""
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
        """The server failed at this request (itself, a webhook, its store) or hung at it: nothing to wait for in silence."""
        return self.status >= 500


class Gone(ClusterError):
    pass


class AnswerTooLarge(ClusterError):
    pass


class LeaseLost(ClusterError):
    pass


class InternalError(OperatorError):
    reason = "InternalError"
