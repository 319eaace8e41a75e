"""A cluster in memory beside the Protocol of `kubectl_alise.kubectl`; the real one is in test_on_control_plane.py and the e2e tests.

The tests of `tests/operator/plugin` and `page/installation.py` use it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kubectl_alise.errors import NotFoundError, PluginError
from kubectl_alise.kubectl import CALL_SECONDS


class FakeCluster:
    """Answers from dicts: objects by the words of `kubectl get`, texts by the words of other commands, outputs by pod and program."""

    def __init__(
        self,
        objects: Mapping[str, Any] | None = None,
        texts: Mapping[str, str | PluginError] | None = None,
        outputs: Mapping[tuple[str, str], tuple[int, str, str]] | None = None,
    ) -> None:
        self.objects, self.texts, self.outputs = dict(objects or {}), dict(texts or {}), dict(outputs or {})
        self.calls: list[tuple[str, ...]] = []
        self.sent: list[str] = []

    def get(self, *arguments: str) -> Any:
        self.calls.append(("get", *arguments))
        return self._answer(self.objects, " ".join(arguments))

    def text(self, *arguments: str, text_in: str | None = None, timeout_seconds: float = CALL_SECONDS) -> str:
        self.calls.append(arguments)
        if text_in is not None:
            self.sent.append(text_in)
        return str(self._answer(self.texts, " ".join(arguments)))

    def run_in(self, pod: str, container: str, command: Sequence[str]) -> tuple[int, str, str]:
        self.calls.append(("exec", pod, container, *command))
        return self.outputs[(pod, command[0])]

    def _answer(self, answers: Mapping[str, Any], words: str) -> Any:
        """The answer whose key the words begin with. Raises it if it is an error, NotFoundError without one."""
        for key, answer in answers.items():
            if words.startswith(key):
                if isinstance(answer, PluginError):
                    raise answer
                return answer
        raise NotFoundError(f"nothing for {words}")
