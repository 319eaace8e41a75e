"""Takes secrets and prompts out of what goes into a support bundle; pure.

Secrets are never read, but a person may have written one into a field: a literal variable, a flag, a URL. Prompts are in the engine's log
if the person switched vLLM's logging of requests on. What is taken out is replaced by REDACTED. `bundle.py` calls it.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "(redacted)"
# Names of variables and fields whose values are secrets. Collectors of traces take theirs in OTEL_EXPORTER_OTLP_HEADERS.
_SECRET_NAME: Final = re.compile(
    r"(?i)token|secret|password|passwd|credential|api_?-?key|private_?key|(?<![a-z])dsn|authorization|otlp_(?:\w+_)?headers"
)
# The ends of names by which a text gives a secret: `api_key=…`, `"password": "…"`, `--hf-token …`. Longer words, as max_tokens, are none.
_SECRET_END: Final = r"(?:token|secret|passw(?:or)?d|credentials?|api[_-]?keys?|private[_-]?key|authorization|dsn)"
# Quoted, in a list, or all up to the next space: rather too much than too little.
_VALUE: Final = r"""(?:\\".*?\\"|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\[[^\]]*\]|\S+)"""
_ASSIGNED: Final = re.compile(rf"""(?i)({_SECRET_END})([\\"']*\s*[=:]\s*)((?:(?:bearer|basic|digest)\s+)?{_VALUE})""")
# A flag may have several values.
_FLAG: Final = re.compile(r"(?<![\w-])(--[A-Za-z][\w.-]{0,80})((?:\s+(?!-)\S+)+)")
_SECRET_FLAG: Final = re.compile(rf"(?i)--?(?:[\w.-]*[_.-])?{_SECRET_END}")
_URL: Final = re.compile(r'://[^\s"]+')
_BEARER: Final = re.compile(r"(?i)\b(bearer\s+|sk-|hf_|gh[opsu]_|github_pat_|glpat-)[\w.~+/=-]{6,}")
_NUMBER: Final = re.compile(r"[\d.]+,?")
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
    # A password of digits; a number that is called a token counts some.
    return REDACTED if _is_secret_field(name) and isinstance(value, int | float) and "token" not in name.lower() else value


def redacted_text(text: str) -> str:
    """The text without credentials in URLs, without values that are named as secrets, and without keys that look like ones."""
    text = _ASSIGNED.sub(_without_value, _URL.sub(_without_password, text))
    return _BEARER.sub(REDACTED, _FLAG.sub(_without_values, text))


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


def _without_password(found: re.Match[str]) -> str:
    """What follows the scheme, without what is before the authority's last @. A password may have a slash or an @ itself."""
    url = found[0]
    last = url.rfind("@")
    begins = url.find("://") + 3
    while 3 <= begins <= last:
        slash, colon = url.find("/", begins), url.find(":", begins)
        in_authority = slash < 0 or last < slash or 0 <= colon < slash
        if in_authority or url.find("@", begins, slash) >= 0:
            ends = last if in_authority else url.rfind("@", begins, slash)
            return url[:begins] + REDACTED + url[ends:]
        # The next URL of the same word.
        begins = url.find("://", begins) + 3
    return url


def _without_value(found: re.Match[str]) -> str:
    name, between, value = found.groups()
    # `seconds_per_token: 0.05` is a figure.
    return found[0] if name.lower() == "token" and _NUMBER.fullmatch(value) else f"{name}{between}{REDACTED}"


def _without_values(found: re.Match[str]) -> str:
    return f"{found[1]} {REDACTED}" if _SECRET_FLAG.fullmatch(found[1]) else found[0]


def _redacted_list(values: list[Any], name: str) -> list[Any]:
    result: list[Any] = []
    secret = False
    for value in values:
        if isinstance(value, str):
            flag, equals, _ = value.partition("=")
            if value.startswith("--") or (value.startswith("-") and not secret):
                secret = bool(_SECRET_FLAG.fullmatch(flag))
                value = f"{flag}={REDACTED}" if secret and equals else value
            elif secret:
                value = REDACTED
        result.append(redacted_object(value, name))
    return result


def _is_secret_field(name: str) -> bool:
    """Whether a field of this name holds a secret, and not only the name of a Secret."""
    return bool(_SECRET_NAME.search(name)) and not name.lower().endswith(("ref", "name", "names", "hash", "secret", "secrets"))
