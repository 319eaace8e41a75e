"""Debian's Chromium without a window: a page as a browser makes it, and its picture.

`test_in_chromium.py` and `test_on_control_plane.py` start it.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.cluster import packages

OPEN_SECONDS: Final = 60.0
# One screen of a laptop.
SCREEN: Final = (1280, 800)
# blink's numbers.
_SCHEMES: Final = {"dark": 0, "light": 1}


def program() -> str:
    """The path of the browser; Debian's package is installed where it is missing. Raises UnsupportedMachine."""
    if shutil.which("chromium") is None:
        packages.install(packages.BROWSER)
    return shutil.which("chromium") or "chromium"


def dom_of(url: str, folder: Path) -> str:
    """The document after the browser has loaded it and run what it runs. `folder` keeps its profile."""
    return _run(folder, "--dump-dom", url)


def take_picture(url: str, folder: Path, picture: Path, scheme: str = "light", screen: tuple[int, int] = SCREEN) -> None:
    """Writes a PNG of the top of the page."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    size = f"--window-size={screen[0]},{screen[1]}"
    _run(folder, f"--screenshot={picture}", size, f"--blink-settings=preferredColorScheme={_SCHEMES[scheme]}", "--hide-scrollbars", url)


def _run(folder: Path, *arguments: str) -> str:
    # Root has no sandbox. It resolves no name but this machine's, so nothing of it leaves the machine.
    fixed = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost", f"--user-data-dir={folder}",
    ]  # fmt: skip
    done = subprocess.run(
        [program(), *fixed, *arguments], capture_output=True, text=True, errors="replace", timeout=OPEN_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
