"""Write logs as JSON lines on stderr. `__main__.py` sets it up; every other module uses `logging.getLogger(__name__)`.

For example, `log.info("job admitted", extra={"job": job_id})` writes a line with `"message": "job admitted"` and `"job"`. The schema is
that of the operator's logs:

    time        when it was logged: ISO 8601 in UTC, with milliseconds
    level       debug, info, warning, error or critical
    logger      the module
    message     what happened, as one clause without values that change
    exception   the traceback, if there is one

Everything in `extra` becomes a further field. Prompts are never logged.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from pythonjsonlogger.json import JsonFormatter as LibraryFormatter

_NAMES: Final = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "exception"}


class JsonFormatter(LibraryFormatter):
    """Formats a record as one line of JSON."""

    def __init__(self) -> None:
        super().__init__(["asctime", "levelname", "name", "message"], rename_fields=_NAMES, json_default=str, json_ensure_ascii=False)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        super().add_fields(log_data, record, message_dict)
        # A field of `extra` cannot replace these.
        log_data.update(level=record.levelname.lower(), logger=record.name)


def set_up(level: str) -> None:
    """Send all logs of at least this level to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # gRPC's own messages say nothing about jobs.
    logging.getLogger("grpc").setLevel(logging.WARNING)
