"""What prevents a release, each a sentence that says what to do; and the notes of a version from CHANGELOG.md.

Pure, but for `of_tree` and `committed_at`, which ask git. `__main__.py` calls it.
"""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_VERSION: Final = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?")
_REGISTRY: Final = re.compile(r"[a-zA-Z0-9.:_-]+(/[a-zA-Z0-9._-]+)*/?")
_HEADING: Final = re.compile(r"^## (?P<version>\S+)(?: \((?P<when>[^)]*)\))?$", re.MULTILINE)
_ADDRESS: Final = "https://example.com/alise/0.1.0"
_USAGE: Final = f"make release VERSION=0.1.0 IMAGE_REGISTRY=registry.example.com/team RELEASE_URL={_ADDRESS}"
GIT_SECONDS: Final = 60.0


def problems(version: str, registry: str, changelog: str, project: str) -> Iterator[str]:
    """What is wrong with the arguments and the texts of CHANGELOG.md and pyproject.toml."""
    if not version:
        yield f"VERSION is missing: {_USAGE}"
    elif not _VERSION.fullmatch(version):
        yield f"VERSION={version!r} is no version: write three numbers, like 0.1.0, and a suffix after a hyphen if it is a preview"
    else:
        yield from _of_texts(version, changelog, project)
    if not registry:
        yield f"IMAGE_REGISTRY is missing: {_USAGE}"
    elif not _REGISTRY.fullmatch(registry):
        yield f"IMAGE_REGISTRY={registry!r} is no registry: write host/name without a scheme, like ghcr.io/me"


def _of_texts(version: str, changelog: str, project: str) -> Iterator[str]:
    known = {found["version"]: found["when"] or "" for found in _HEADING.finditer(changelog)}
    if version not in known:
        yield f"CHANGELOG.md has no section for {version}: write what changed below a line `## {version} (DATE)`"
    elif "unreleased" in known[version].lower():
        yield f"CHANGELOG.md calls {version} unreleased: write the date into its heading"
    declared = tomllib.loads(project)["project"]["version"]
    if declared != version:
        yield f"pyproject.toml has the version {declared}, and VERSION is {version}: change one of them, then run `make chart`"


def of_address(address: str) -> Iterator[str]:
    """What is wrong with the place where the files will be published."""
    if not re.fullmatch(r"https://[^\s/]+(/\S*)?", address):
        given = f"RELEASE_URL={address!r} is no address" if address else "RELEASE_URL is missing"
        yield f"{given}: name the folder in which the files will be published, such as {_ADDRESS}"


def of_tree(root: Path) -> Iterator[str]:
    """What is wrong with the work tree."""
    changed = _git(root, "status", "--porcelain").splitlines()
    if changed:
        yield f"the work tree has changes that are not committed, {changed[0][3:]} first of {len(changed)}: commit or remove them"


def committed_at(root: Path) -> int:
    """The time of the commit that is released, in seconds since 1970: releases of the same commit have the same time."""
    return int(_git(root, "log", "-1", "--format=%ct"))


def notes(version: str, changelog: str) -> str:
    """The section of a version, with its heading. Raises KeyError when there is none."""
    headings = list(_HEADING.finditer(changelog))
    for number, found in enumerate(headings):
        if found["version"] == version:
            end = headings[number + 1].start() if number + 1 < len(headings) else len(changelog)
            return changelog[found.start() : end].strip() + "\n"
    raise KeyError(version)


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True, timeout=GIT_SECONDS).stdout
