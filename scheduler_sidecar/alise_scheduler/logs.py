"""Structured logs: one JSON object per line on stderr, with `event` and further fields.

`log.info("job admitted", extra={"job": job_id, "job_level": 3})` writes `"event": "job admitted", "job": …, "job_level": 3`. Prompts are
never logged. `__main__.py` sets it up.
"""

import json
import logging
import sys
import time
from typing import Any, Final

_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        fields.update({key: value for key, value in vars(record).items() if key not in _PLAIN and key not in fields})
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def set_up(level: str) -> None:
    """Send all logs of at least this level to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # gRPC's own messages say nothing about jobs.
    logging.getLogger("grpc").setLevel(logging.WARNING)
