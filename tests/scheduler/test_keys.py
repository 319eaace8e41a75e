"""Secrets: where the keys come from, what is never shown of a connection string, what a bad setting shows."""

import io
import logging
import traceback
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alise_scheduler.config import Settings, load
from alise_scheduler.errors import ConfigError, HistoryError
from alise_scheduler.keys import keys_of
from alise_scheduler.logs import JsonFormatter
from alise_scheduler.predictor.start import Where, start
from alise_scheduler.predictor.storage.dsn import password_of, where
from alise_scheduler.predictor.storage.postgres import PostgresStore


def set_to(folder: Path, **values: str) -> Settings:
    return load({}, {"socket_dir": str(folder), **values})


def test_keys_survive_a_restart_of_the_container_and_not_the_pod(tmp_path: Path) -> None:
    assert keys_of(set_to(tmp_path / "a")) == keys_of(set_to(tmp_path / "a"))
    one, two = keys_of(set_to(tmp_path / "a")), keys_of(set_to(tmp_path / "b"))
    assert not {one.hint, one.salt, one.head} & {two.hint, two.salt, two.head}


def test_no_key_is_another_or_its_beginning(tmp_path: Path) -> None:
    keys = keys_of(set_to(tmp_path))
    assert len({keys.hint[:16], keys.salt[:16], keys.head[:16]}) == 3


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"history_key": "the same everywhere", "history_dsn": "host=db password=x"}, id="the key that is set"),
        pytest.param({"history_dsn": "host=db password=hunter2"}, id="the database's password"),
        pytest.param({"history_dsn": "host=db"}, id="the whole string where it has no password"),
        pytest.param({"history_dsn": "postgres://broken:pa ss@"}, id="the whole string where it cannot be read"),
    ],
)
def test_replicas_have_the_same_salt_and_different_hint_keys(tmp_path: Path, values: dict[str, str]) -> None:
    one, two = (keys_of(set_to(tmp_path / name, **values)) for name in "ab")
    assert (one.salt, one.head) == (two.salt, two.head)
    assert one.hint != two.hint


def test_a_connection_string_without_a_password_is_logged_as_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys_of(set_to(tmp_path, history_dsn="host=db password=x"))
    keys_of(set_to(tmp_path, history_dsn="host=db", history_key="x"))
    assert not caplog.records
    keys_of(set_to(tmp_path, history_dsn="host=db"))
    assert [record.getMessage() for record in caplog.records] == ["the shared history has no secret key: set one"]


def test_another_password_is_another_salt(tmp_path: Path) -> None:
    one, two = (keys_of(set_to(tmp_path, history_dsn=f"host=db password={word}")) for word in ("a", "b"))
    assert one.salt != two.salt


def test_a_missing_pod_key_is_logged_and_leaves_no_hint_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    keys = keys_of(set_to(tmp_path / "file" / "sock"))
    assert keys.hint == b""
    assert len(keys.salt) == 16
    assert "no pod key" in caplog.text


def test_keys_are_not_shown(tmp_path: Path) -> None:
    keys = keys_of(set_to(tmp_path))
    assert keys.hint.hex() not in repr(keys)
    assert repr(keys.hint) not in repr(keys)


# --- connection strings -----------------------------------------------------------------------------------------------------------------

SECRET = "hunter2"
WRAPPED = [
    "host=127.0.0.1 port=1 password={} dbname=x", "host=127.0.0.1 port=1 password='{} dbname=x", "password = {} host", "{}", "{}={}",
    "postgres://user:{}@127.0.0.1:1/db", "postgres://user:{}@[::1/db", "postgres://user:{}@127.0.0.1:{}/db", "postgres://{}", "postgres://{}@{}/{}?{}",
    "postgres://user:a/{}@127.0.0.1/db", "postgres://user:a#{}@127.0.0.1/db", "postgres://user:a?{}@127.0.0.1/db", "postgres://u:a@{}@127.0.0.1/db",
    "postgresql://user@127.0.0.1:1/db?password={}", "postgresql://user@127.0.0.1:1/db?{}=1", "postgres://user:%zz{}@127.0.0.1/db",
    "host={} password={}", "service={}", "host=127.0.0.1 port={}", "host=127.0.0.1 port=1 sslmode={}", "host=127.0.0.1 port=1 options='{}'",
    "password=x host={} port=1", "password=x host=127.0.0.1 port=1 dbname={}", "user=u password=x host={} dbname={}",
    "passfile=/x/{} host=127.0.0.1 port=1", "\x00{}", "postgres://user:{}\n@127.0.0.1:1/db", "postgres://user:{}\udcff@127.0.0.1:1/db",
]  # fmt: skip


def said(dsn: str) -> str:
    """Everything that is logged, raised or shown when this is the database."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.DEBUG)
    try:
        try:
            PostgresStore(dsn, "one", b"key")
        except HistoryError as error:
            out.write("".join(traceback.format_exception(error)) + repr(error))
        out.write(repr(Where("", dsn, b"key")) + repr(load({}, {"history_dsn": dsn})))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return out.getvalue()


@pytest.mark.parametrize("shape", WRAPPED)
def test_no_malformed_connection_string_shows_its_password(shape: str) -> None:
    assert SECRET not in said(shape.replace("{}", SECRET))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(WRAPPED), st.text(alphabet="@:/?#[]=' %&\\\"\n", max_size=4), st.text(alphabet="@:/?#[]=' %&\\\"\n", max_size=4))
@example("postgres://user:{}@127.0.0.1:1/db", "", "@")
def test_no_odd_character_beside_it_shows_the_password(shape: str, before: str, after: str) -> None:
    assert SECRET not in said(shape.replace("{}", f"{before}{SECRET}{after}"))


def test_a_history_with_such_a_database_starts_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = start(Where(str(tmp_path), "postgres://user:hunter2@[::1/db", b"key"))
    parts.archive.close()
    assert "hunter2" not in "".join(str(record.__dict__) for record in caplog.records)


@pytest.mark.parametrize(
    ("dsn", "text"),
    [
        pytest.param("host=db.example dbname=lengths password=x1", " at db.example, database lengths", id="keys and values"),
        pytest.param("password=x1 host=db.example dbname=lengths", "", id="keys and values after the password"),
        pytest.param("postgres://u:hunter2@db.example:5432/lengths", " at db.example, database lengths", id="a URL"),
        pytest.param("postgres://u:hun@ter2@db.example/lengths", "", id="a password with an @"),
        pytest.param("postgres://u:hun/ter2@db.example/lengths", "", id="a password with a /"),
        pytest.param("host=db password", "", id="half a pair"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_host_and_database_are_named_where_they_are_beyond_doubt(dsn: str, text: str) -> None:
    assert where(dsn) == text


def test_the_password_is_found_in_both_forms() -> None:
    assert password_of("host=db password='a b'") == "a b"
    assert password_of("postgres://u:a%20b@db/x") == "a b"


@pytest.mark.parametrize("setting", ["history_dsn", "history_key"])
def test_a_bad_setting_does_not_show_a_secret(setting: str) -> None:
    # Not as one word, for a traceback shows this line.
    secret = "".join(("hun", "ter2"))
    with pytest.raises(ConfigError) as caught:
        load({}, {setting: [secret]})  # type: ignore[dict-item]
    assert setting.replace("_", "-") in str(caught.value)
    assert secret not in "".join(traceback.format_exception(caught.value))


def test_embeddings_are_kept_unless_they_are_not_wanted() -> None:
    assert load({}, {}).history_embeddings
    assert not load({"ALISE_HISTORY_EMBEDDINGS": "false"}, {}).history_embeddings
