"""Takes secrets and prompts out of what goes into a support bundle; pure.

Secrets are never read, but a person may have written one into a field: a literal variable, a flag, a URL. Prompts are in the engine's log
if the person switched vLLM's logging of requests on. What is taken out is replaced by REDACTED.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "(redacted)"
# Names of variables and fields whose values are secrets.
_SECRET_NAME: Final = re.compile(r"(?i)token|secret|password|passwd|credential|api_?-?key|private_?key|(?<![a-z])dsn|authorization")
# Flags of vLLM and of alise whose value is a secret.
_SECRET_FLAGS: Final = frozenset({"--api-key", "--ssl-keyfile-password", "--hf-token"})
_URL_PASSWORD: Final = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)")
_BEARER: Final = re.compile(r"(?i)\b(bearer\s+|sk-|hf_)[\w.~+/=-]{6,}")
# The lines of vLLM's log that quote a request or an answer (--enable-log-requests, VLLM_DEBUG_LOG_API_SERVER_RESPONSE).
_QUOTES: Final = re.compile(r"Received request|Generated response|response_body=|prompt:|'prompt'|\"prompt\"|messages=|prompt_token_ids")
# What follows such a line belongs to it until a line begins as every line of the log does.
_BEGINS: Final = re.compile(r"^(?:\(\w+ pid=\d+\) )?(?:INFO|WARNING|ERROR|DEBUG|CRITICAL) |^\{\"time\"|^INFO: ")
_UNNEEDED: Final = frozenset({"managedFields", "kubectl.kubernetes.io/last-applied-configuration"})


def redacted_object(value: Any, name: str = "") -> Any:
    """The object without secrets, and without fields that only repeat it."""
    if isinstance(value, Mapping):
        if isinstance(value.get("name"), str) and isinstance(value.get("value"), str) and _SECRET_NAME.search(value["name"]):
            value = {**value, "value": REDACTED}
        return {key: redacted_object(inner, str(key)) for key, inner in value.items() if key not in _UNNEEDED}
    if isinstance(value, list):
        return _redacted_list(value, name)
    if isinstance(value, str):
        return REDACTED if _is_secret_field(name) else redacted_text(value)
    return value


def redacted_text(text: str) -> str:
    """The text without credentials in URLs and without keys that look like ones."""
    return _BEARER.sub(REDACTED, _URL_PASSWORD.sub(REDACTED, text))


def redacted_log(log: str) -> str:
    """The log without lines that quote a request or an answer, and without credentials."""
    lines, quoting = [], False
    for line in log.splitlines():
        if _QUOTES.search(line):
            if not quoting:
                lines.append(f"{REDACTED} a line that may quote a request")
            quoting = True
        elif not quoting or _BEGINS.search(line):
            quoting = False
            lines.append(redacted_text(line))
    return "\n".join(lines) + "\n"


def _redacted_list(values: list[Any], name: str) -> list[Any]:
    result: list[Any] = []
    for value in values:
        before = result[-1] if result else None
        if isinstance(value, str):
            flag, equals, _ = value.partition("=")
            if equals and flag in _SECRET_FLAGS:
                value = f"{flag}={REDACTED}"
            elif before in _SECRET_FLAGS:
                value = REDACTED
        result.append(redacted_object(value, name))
    return result


def _is_secret_field(name: str) -> bool:
    """Whether a field of this name holds a secret, and not only the name of a Secret."""
    return bool(_SECRET_NAME.search(name)) and not name.lower().endswith(("ref", "name", "names", "hash", "secret", "secrets"))
