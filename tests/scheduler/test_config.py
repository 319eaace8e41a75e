"""Settings from flags and variables, and the sentences about bad ones."""

import json
import logging

import pytest

from alise_scheduler.__main__ import main, parser
from alise_scheduler.config import Settings, env_name, flag_name, load
from alise_scheduler.core.rank import AgeingRule, LatenessRule, Policy
from alise_scheduler.errors import ConfigError
from alise_scheduler.logs import JsonFormatter


def test_without_settings_the_defaults_hold() -> None:
    settings = load({}, {})
    assert settings == Settings.model_validate({})
    assert settings.to_policy() == Policy()


def test_the_environment_is_read_and_a_flag_wins() -> None:
    env = {"ALISE_POLICY": "sjf", "ALISE_MAX_WAIT_SECONDS": "7", "ALISE_UNRELATED": "x"}
    settings = load(env, {"max_wait_seconds": "9"})
    assert (settings.policy, settings.max_wait_seconds) == ("sjf", 9)


def test_every_setting_has_a_flag_that_names_its_variable() -> None:
    for field in Settings.model_fields:
        options = vars(parser().parse_args(["run", flag_name(field), "x"]))
        assert options[field] == "x"
        assert env_name(field) == "ALISE_" + field.upper()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        pytest.param("ALISE_POLICY", "best", "'alise', 'gittins', 'sjf' or 'fcfs'", id="an unknown policy"),
        pytest.param("ALISE_MAX_WAIT_SECONDS", "-1", "greater than or equal to 0", id="a negative limit"),
        pytest.param("ALISE_INT8_EWT_MS", "many", "valid integer", id="a word for a number"),
        pytest.param("ALISE_AGEING_JOBS", "nan", "finite number", id="no number"),
        pytest.param("ALISE_HOST_MEMORY", "2 apples", "is not a quantity", id="a quantity of apples"),
        pytest.param("ALISE_CLASSES", "{", "is not JSON", id="broken JSON"),
        pytest.param(
            "ALISE_CLASSES", '[{"name": "a"}, {"name": "a"}]', "has several classes with the same name: a", id="a class named twice"
        ),
        pytest.param("ALISE_CLASSES", '[{"name": "a", "weight": 0}]', "0.0625", id="a class without weight"),
        pytest.param("ALISE_INT8_HOST_FRACTION", "1.5", "less than or equal to 1", id="more than all"),
        pytest.param("ALISE_HTTP_PORT", "70000", "65535", id="a port that is none"),
    ],
)
def test_bad_settings_name_the_variable_the_value_and_what_is_allowed(variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({variable: value}, {})
    assert variable in str(caught.value)
    assert repr(value) in str(caught.value)
    assert message in str(caught.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"--policy.*ALISE_MAX_WAIT_SECONDS"):
        load({"ALISE_MAX_WAIT_SECONDS": "-1"}, {"policy": "x"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("1024", 1024, id="bytes"),
        pytest.param("2Gi", 2 << 30, id="binary units"),
        pytest.param("1.5M", 1_500_000, id="decimal units"),
        pytest.param("", 0, id="empty is unset"),
    ],
)
def test_quantities(text: str, expected: int) -> None:
    assert load({"ALISE_HOST_MEMORY": text}, {}).host_memory == expected


def test_half_a_byte_of_host_memory_is_refused_with_an_example() -> None:
    with pytest.raises(ConfigError, match=r"ALISE_HOST_MEMORY='500m': .*is not a quantity of bytes such as 4Gi"):
        load({"ALISE_HOST_MEMORY": "500m"}, {})


@pytest.mark.parametrize(
    ("env", "levels"),
    [
        pytest.param({"ALISE_POLICY": "alise"}, Policy().preemption.levels, id="alise preempts"),
        pytest.param({"ALISE_POLICY": "gittins", "ALISE_PREEMPT_LEVELS": "8"}, 8, id="gittins preempts as told"),
        pytest.param({"ALISE_POLICY": "sjf"}, 0, id="sjf does not"),
        pytest.param({"ALISE_POLICY": "fcfs"}, 0, id="fcfs does not"),
        pytest.param({"ALISE_PREEMPTION": "false"}, 0, id="no job does when it is off"),
    ],
)
def test_who_preempts(env: dict[str, str], levels: int) -> None:
    assert load(env, {}).to_policy().preemption.levels == levels


def test_ageing_can_be_off_and_its_pace_be_set() -> None:
    assert load({"ALISE_AGEING": "false"}, {}).to_policy().ageing is None
    assert load({"ALISE_AGEING_JOBS": "9"}, {}).to_policy().ageing == AgeingRule(jobs=9)


def test_what_is_late_and_what_is_overdue_can_be_set_and_goes_with_ageing() -> None:
    assert load({}, {}).to_policy().lateness == LatenessRule()
    rule = load({"ALISE_SLOWDOWN_TARGET": "20", "ALISE_OVERDUE_SECONDS": "60"}, {}).to_policy().lateness
    assert rule == LatenessRule(slowdown=20, overdue_seconds=60)
    assert load({"ALISE_AGEING": "false"}, {}).to_policy().lateness is None


def test_classes_come_as_json_in_the_users_spelling() -> None:
    settings = load({"ALISE_CLASSES": '[{"name": "batch", "weight": 0.25, "sloTtftMs": 500}]'}, {})
    assert settings.classes[0].slo_ttft_ms == 500


def test_the_command_line_refuses_a_bad_setting_with_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--policy", "best"]) == 2
    assert "--policy='best'" in capsys.readouterr().err


def test_a_log_line_is_json_with_its_fields() -> None:
    record = logging.makeLogRecord({"msg": "job admitted", "levelname": "INFO", "name": "x", "job": "a", "level": "not taken"})
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "job admitted"
    assert line["job"] == "a"
    assert line["level"] == "info"
