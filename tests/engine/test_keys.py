"""API keys in a folder, as the kubelet mounts a Secret: a link to a folder of files, which it exchanges in one step."""

import logging
import os
from pathlib import Path

import pytest

from alise_engine.api.keys import CHECK_SECONDS, MAX_FILE_BYTES, KeyFolder


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    def later(self) -> None:
        self.seconds += CHECK_SECONDS


class Secret:
    """A mounted Secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version = 0
        folder.mkdir()

    def write(self, **entries: str) -> None:
        self._version += 1
        data = self.folder / f"..v{self._version}"
        data.mkdir()
        for tenant, keys in entries.items():
            (data / tenant).write_text(keys)
        link = self.folder / "..data_tmp"
        link.symlink_to(data.name)
        os.replace(link, self.folder / "..data")
        for path in self.folder.iterdir():
            if not path.name.startswith(".."):
                path.unlink()
        for tenant in entries:
            (self.folder / tenant).symlink_to(f"..data/{tenant}")


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    return Secret(tmp_path / "auth")


def test_each_entry_is_a_tenant_and_each_line_a_key(secret: Secret) -> None:
    secret.write(a="one\n  two \n\n", b="three")
    keys = KeyFolder(secret.folder).keyring()
    assert [keys.tenant(key) for key in ("one", "two", "three", "four", "")] == ["a", "a", "b", None, None]


def test_a_rotated_key_counts_soon_and_the_old_one_no_more(secret: Secret) -> None:
    clock = Clock()
    secret.write(a="old")
    folder = KeyFolder(secret.folder, clock)
    assert folder.keyring().tenant("old") == "a"
    secret.write(a="new")
    clock.later()
    assert (folder.keyring().tenant("new"), folder.keyring().tenant("old")) == ("a", None)


def test_a_key_that_is_exchanged_for_one_of_the_same_length_is_seen(secret: Secret) -> None:
    clock = Clock()
    secret.write(a="aaa")
    folder = KeyFolder(secret.folder, clock)
    folder.keyring()
    secret.write(a="bbb")
    clock.later()
    assert folder.keyring().tenant("bbb") == "a"


def test_the_folder_is_not_looked_at_for_every_request(secret: Secret) -> None:
    clock = Clock()
    secret.write(a="old")
    folder = KeyFolder(secret.folder, clock)
    folder.keyring()
    secret.write(a="new")
    assert folder.keyring().tenant("old") == "a"


def test_without_a_folder_nobody_is_let_in_until_there_is_one(secret: Secret, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    secret.write(a="one")
    hidden = secret.folder.rename(secret.folder.with_name("hidden"))
    folder = KeyFolder(secret.folder, clock)
    with caplog.at_level(logging.ERROR):
        assert folder.keyring().tenant("one") is None
    assert "every request is refused" in caplog.text
    hidden.rename(secret.folder)
    clock.later()
    assert folder.keyring().tenant("one") == "a"


def test_a_folder_that_goes_away_takes_its_keys_with_it(secret: Secret) -> None:
    clock = Clock()
    secret.write(a="one")
    folder = KeyFolder(secret.folder, clock)
    folder.keyring()
    secret.folder.rename(secret.folder.with_name("hidden"))
    clock.later()
    assert folder.keyring().tenant("one") is None


def test_files_that_are_exchanged_while_they_are_read_lock_no_request_out(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    secret.write(a="one", b="two")
    read_bytes = Path.read_bytes

    def exchanged_before(path: Path) -> bytes:
        monkeypatch.undo()
        secret.write(b="three")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", exchanged_before)
    keys = KeyFolder(secret.folder).keyring()
    assert (keys.tenant("three"), keys.tenant("one")) == ("b", None)


def test_a_key_of_two_tenants_is_the_first_ones_and_named_in_the_log(secret: Secret, caplog: pytest.LogCaptureFixture) -> None:
    secret.write(b="same", a="same")
    with caplog.at_level(logging.ERROR):
        assert KeyFolder(secret.folder).keyring().tenant("same") == "a"
    assert ("tenants a and b have the same API key" in caplog.text, "same\n" in caplog.text) == (True, False)


def test_an_endless_file_is_left_out(secret: Secret) -> None:
    secret.write(a="x" * (MAX_FILE_BYTES + 1), b="one")
    keys = KeyFolder(secret.folder).keyring()
    assert (keys.tenant("one"), len(keys.tenants)) == ("b", 1)
