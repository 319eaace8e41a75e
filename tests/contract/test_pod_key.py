"""The pod's key, and what it signs."""

import threading
from pathlib import Path

import pytest

from alise_contract.names import POD_KEY_BYTES, POD_KEY_FILE
from alise_contract.pod_key import MAC_BYTES, derived, is_mac, mac, pod_key

KEY = b"k" * POD_KEY_BYTES


def test_the_key_is_made_once_and_read_after_that(tmp_path: Path) -> None:
    first = pod_key(tmp_path / "sock")
    assert pod_key(tmp_path / "sock") == first
    assert len(first) == POD_KEY_BYTES


def test_nobody_else_can_read_the_key(tmp_path: Path) -> None:
    pod_key(tmp_path / "sock")
    assert (tmp_path / "sock" / POD_KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "sock").stat().st_mode & 0o777 == 0o700


def test_containers_that_start_together_have_one_key(tmp_path: Path) -> None:
    seen: list[bytes] = []
    together = threading.Barrier(8)

    def start() -> None:
        together.wait()
        seen.append(pod_key(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [POD_KEY_FILE]


def test_a_file_that_holds_no_key_is_named(tmp_path: Path) -> None:
    (tmp_path / POD_KEY_FILE).write_bytes(b"short")
    with pytest.raises(ValueError, match=r"pod\.key holds 5 bytes, expected 32"):
        pod_key(tmp_path)


FORGED = [
    pytest.param(b"k" * POD_KEY_BYTES, (b"job", b"other"), id="another text"),
    pytest.param(b"k" * POD_KEY_BYTES, (b"jobtext", b""), id="the same bytes divided otherwise"),
    pytest.param(b"K" * POD_KEY_BYTES, (b"job", b"text"), id="another key"),
]


@pytest.mark.parametrize(("key", "parts"), FORGED)
def test_a_signature_holds_for_its_key_and_its_parts_only(key: bytes, parts: tuple[bytes, ...]) -> None:
    made = mac(KEY, b"job", b"text")
    assert len(made) == MAC_BYTES
    assert is_mac(KEY, made, b"job", b"text")
    assert not is_mac(key, made, *parts)


def test_keys_for_two_purposes_differ() -> None:
    assert derived(KEY, "stamp") != derived(KEY, "hint") != KEY


def test_a_purpose_that_names_a_file_of_any_bytes_has_a_key() -> None:
    assert derived(KEY, "prefix cache team-\udcff") != derived(KEY, "prefix cache team-?")
