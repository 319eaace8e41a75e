"""Writes logs as JSON lines on stderr.

The `__main__.py` of the operator and that of the picker call `configure()` once; every other module uses `logging.getLogger(__name__)`.

The schema of a line, with the fields of `extra` beside it:

    time        when it was logged: ISO 8601 in UTC, with milliseconds
    level       debug, info, warning, error or critical
    logger      the module
    message     what happened, as one clause without values that change
    exception   the traceback, if there is one

An AliseEngine is named by the field `engine`, as namespace/name.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter as LibraryFormatter

_NAMES: Final = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "exception"}
# Fields that kopf adds, too large or not JSON.
_DROPPED: Final = ("settings", "local", "k8s_skip")


class JsonFormatter(LibraryFormatter):
    def __init__(self) -> None:
        super().__init__(
            ["asctime", "levelname", "name", "message"],
            rename_fields=_NAMES,
            reserved_attrs=[*RESERVED_ATTRS, *_DROPPED],
            json_default=str,
            json_ensure_ascii=False,
        )

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        super().add_fields(log_data, record, message_dict)
        # A field of `extra` cannot replace these.
        log_data.update(level=record.levelname.lower(), logger=record.name)


def configure(level: str, stream: TextIO = sys.stderr) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # kopf logs every watch event below the level of warnings.
    logging.getLogger("kopf").setLevel(logging.WARNING)
