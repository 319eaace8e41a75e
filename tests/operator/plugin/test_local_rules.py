"""Who may read the page on a person's machine."""

from typing import Any

import pytest

from kubectl_alise.local_rules import Admitted, Redirect, Refused, admission

KEY, PORT = "secret-key", 8001
# Other servers of the machine set odd cookies.
HOST, COOKIE = f"127.0.0.1:{PORT}", f'other={{"a": 1, [}}; @; alise_ui_{PORT}={KEY}'


def asked(target: str, host: str = HOST, cookies: str = "") -> Any:
    return admission(target, host, cookies, KEY, PORT)


def test_the_address_with_the_key_leads_to_the_page_without_it() -> None:
    cookie = f"alise_ui_{PORT}={KEY}; Path=/; HttpOnly; SameSite=Strict"
    assert asked(f"/?key={KEY}") == Redirect("/", cookie)
    assert asked(f"/engines/team/chat?request=a%26b&key={KEY}") == Redirect("/engines/team/chat?request=a%26b", cookie)


def test_a_browser_with_the_cookie_gets_the_page() -> None:
    assert asked("/engines/team/chat?request=1", cookies=COOKIE) == Admitted("/engines/team/chat?request=1")


@pytest.mark.parametrize("cookies", ["", "alise_ui_8001=other", f"alise_ui_8002={KEY}", f"x={KEY}", "alise_ui_8001", "\x00=;;"])
def test_another_user_of_the_machine_gets_nothing(cookies: str) -> None:
    assert asked("/", cookies=cookies) == Refused(403, "Open the address that `kubectl alise ui` printed: it has the key.")


def test_a_wrong_key_is_refused() -> None:
    assert isinstance(asked("/?key=wrong"), Refused)
    assert isinstance(asked("/?key=\udcff"), Refused)


@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1.evil.example.com:8001", "", "localhost@evil.example.com"])
def test_a_website_whose_name_leads_here_gets_nothing_with_any_key(host: str) -> None:
    assert asked(f"/?key={KEY}", host, COOKIE) == Refused(421, "Open the page as http://127.0.0.1 or localhost.")


def test_a_path_that_no_browser_sends_is_refused() -> None:
    assert asked("/engines/t\xe9am/chat", cookies=COOKIE) == Refused(404, "There is no such page.")


@pytest.mark.parametrize("target", [f"//evil.example.com/?key={KEY}", f"http://evil.example.com/?key={KEY}", ""])
def test_the_key_leads_to_no_other_host(target: str) -> None:
    assert asked(target, cookies=COOKIE) == Refused(404, "There is no such page.")
