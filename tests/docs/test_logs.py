"""The line of a log in docs/how-to/monitoring.md is as the formatters write it."""

import json
import logging
from pathlib import Path

import pytest

import alise_operator.logs
import alise_scheduler.logs

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/monitoring.md"
RECORD = {
    "created": 1795964400.25, "levelname": "DEBUG", "name": "alise_scheduler.rpc.admission", "msg": "job admitted",
    "job": "5f0c1e9a7b3d4c2e8a6f1b0d9c7e3a52", "job_level": -8, "predicted_tokens": 42
}  # fmt: skip


@pytest.mark.parametrize(
    "formatter", [alise_operator.logs.JsonFormatter(), alise_scheduler.logs.JsonFormatter()], ids=["operator", "scheduler"]
)
def test_the_example_on_the_page_is_a_line_of_the_formatter(formatter: logging.Formatter) -> None:
    line = formatter.format(logging.makeLogRecord(RECORD))
    assert f"```json\n{line}\n```" in PAGE.read_text(encoding="utf-8")


def test_the_fields_that_the_page_names_are_those_of_a_line() -> None:
    line = json.loads(alise_scheduler.logs.JsonFormatter().format(logging.makeLogRecord(RECORD)))
    assert [*line][:4] == ["time", "level", "logger", "message"]
