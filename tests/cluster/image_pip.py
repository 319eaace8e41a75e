"""Where this machine's pip takes packages from, carried into an image build.

A build container sees neither the machine's pip.conf nor its folders. What pip is configured with here goes in as a build secret (so that
no index address or password stays in a layer), and folders that it names are mounted. `image_build.py` calls it.
"""

import ast
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tests.cluster.errors import CommandFailed

# What says where packages come from; anything else (cache folder, user installs) is the machine's own business.
CARRIED = ("index-url", "extra-index-url", "find-links", "trusted-host", "cert", "timeout", "retries", "proxy")
# Several values are separated by white space, both in a file and in the environment.
PLACES = ("index-url", "extra-index-url", "find-links")
CONFIG_SECONDS = 60


@dataclass(frozen=True, slots=True)
class PipSettings:
    """pip's effective options by name (without dashes in front)."""

    options: Mapping[str, str]

    def folders(self) -> tuple[Path, ...]:
        """The local folders to mount: a `simple` index links to files beside it, so its parent is meant."""
        found = [path for name in PLACES for path in map(local_path, self.options.get(name, "").split()) if path is not None]
        return tuple(dict.fromkeys(path.parent if path.name == "simple" else path for path in found))

    def portable(self) -> "PipSettings":
        """Without what lies on this machine only: for builders that cannot mount folders."""
        kept = {}
        for name, value in self.options.items():
            if name == "cert":
                continue
            if name in PLACES:
                value = " ".join(place for place in value.split() if local_path(place) is None)
            if value:
                kept[name] = value
        return PipSettings(kept)

    def as_file(self) -> str:
        """The text of a pip.conf."""
        return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in self.options.items())


def local_path(place: str) -> Path | None:
    """The path that a find-links or index value names, or None when it is an address elsewhere."""
    if place.startswith("/"):
        return Path(place)
    parts = urlsplit(place)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def parse(listing: str) -> PipSettings:
    """Read the output of `pip config list`. The environment wins over files, `install.` over `global.`, as in pip itself."""
    ranks = {"global": 0, "install": 1, ":env:": 2}
    best: dict[str, tuple[int, str]] = {}
    for line in listing.splitlines():
        key, separator, quoted = line.partition("=")
        section, _, name = key.rpartition(".")
        if not separator or section not in ranks or name not in CARRIED:
            continue
        value = " ".join(str(ast.literal_eval(quoted)).split())
        if value and (name not in best or ranks[section] >= best[name][0]):
            best[name] = (ranks[section], value)
    return PipSettings({name: best[name][1] for name in CARRIED if name in best})


def of_this_machine() -> PipSettings:
    """What pip is configured with here, by its environment and its files. Raises CommandFailed when pip cannot say."""
    argv = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=CONFIG_SECONDS, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"`{' '.join(argv)}` ended with status {done.returncode}: {done.stderr.strip()}")
    return parse(done.stdout)
