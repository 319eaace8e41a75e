"""Base images without a registry: a minimal Debian 12 with Python, built once by debootstrap from the machine's own mirror.

They stand in for `python:3.11-slim-bookworm`, which the Dockerfiles name. The base of an image has Python 3.11 and apt-get; the base of the
stages that build has Python's venv module, and so pip, besides. debootstrap and apt-get check Debian's signatures. `image_build.py` and
`image_tools.py` call it.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.errors import ClusterError
from tests.cluster.progress import step

SUITE = "bookworm"
PACKAGES = ("python3", "ca-certificates")
BUILD_PACKAGES = ("python3-venv",)
BOOTSTRAP_SECONDS = 900
# Nothing reads these in a container; they are half of what debootstrap leaves.
UNUSED = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/man", "usr/share/info", "usr/share/locale", "var/log")
# Of it the packages' licenses stay.
DOCUMENTATION, LICENSES = "usr/share/doc", "copyright"
CONTAINERFILE = "FROM scratch\nADD base.tar /\nENV LANG=C.UTF-8\n"
BUILD_CONTAINERFILE = f"""FROM {{base}}
RUN apt-get update && apt-get install -y --no-install-recommends {" ".join(BUILD_PACKAGES)} && rm -rf /var/lib/apt/lists/*
"""


def reference() -> str:
    """The name of the images' base; another recipe is another name."""
    return f"localhost/alise/base:{SUITE}-{_recipe(SUITE, PACKAGES, UNUSED, DOCUMENTATION, LICENSES, CONTAINERFILE)}"


def build_reference() -> str:
    """The name of the base of the stages that build."""
    return f"localhost/alise/build-base:{SUITE}-{_recipe(reference(), BUILD_CONTAINERFILE)}"


def _recipe(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def mirrors(lists: Sequence[str]) -> tuple[str, str | None]:
    """The archive and the security archive that this machine's package lists name for Debian 12.

    Reads both forms, deb822 stanzas and one-line lists. Raises ClusterError when no list names the suite.
    """
    found: dict[str, str] = {}
    for text in lists:
        for stanza in re.split(r"\n\s*\n", text):
            body = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
            fields = {name.lower(): value.split() for name, value in re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", body, re.MULTILINE)}
            if "uris" in fields and fields.get("enabled", ["yes"])[0].lower() not in ("no", "false", "0"):
                for suite in fields.get("suites", []):
                    found.setdefault(suite, fields["uris"][0])
        for uri, suite in re.findall(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s", text, re.MULTILINE):
            found.setdefault(suite, uri)
    if SUITE not in found:
        raise ClusterError(f"no package list in /etc/apt names Debian's suite {SUITE!r}; the base image is made from it")
    return found[SUITE], found.get(f"{SUITE}-security")


def package_lists(archive: str, security: str | None) -> str:
    """The base's own `/etc/apt/sources.list`."""
    lines = [f"deb {archive} {SUITE} main"]
    if security:
        lines.append(f"deb {security} {SUITE}-security main")
    return "\n".join(lines) + "\n"


def build(buildah: Callable[..., Sequence[str]], work: Path, system: Path = Path("/etc/apt")) -> None:
    """Make the base and commit it under `reference()`. `buildah(*arguments)` gives the command line for our own storage."""
    names = [system / "sources.list", *sorted((system / "sources.list.d").glob("*"))]
    archive, security = mirrors([path.read_text(encoding="utf-8") for path in names if path.is_file()])
    with tempfile.TemporaryDirectory(prefix="base-", dir=work) as folder:
        tree = Path(folder) / "tree"
        with step(f"base image: debootstrap {SUITE} with {', '.join(PACKAGES)}"):
            include = f"--include={','.join(PACKAGES)}"
            run(["debootstrap", "--variant=minbase", include, SUITE, str(tree), archive], timeout_seconds=BOOTSTRAP_SECONDS)
            strip(tree)
            (tree / "etc/apt/sources.list").write_text(package_lists(archive, security), encoding="utf-8")
            run(["tar", "-C", str(tree), "--numeric-owner", "-cf", f"{folder}/base.tar", "."], timeout_seconds=120)
        with step("base image: commit"):
            (Path(folder) / "Containerfile").write_text(CONTAINERFILE, encoding="utf-8")
            (Path(folder) / ".dockerignore").write_text("tree\n", encoding="utf-8")
            argv = buildah("build", "--quiet", "--tag", reference(), "--file", f"{folder}/Containerfile", folder)
            run(argv, timeout_seconds=300)


def build_tools(buildah: Callable[..., Sequence[str]], work: Path, flags: Sequence[str]) -> None:
    """Make the base of the stages that build on top of the other one. `flags` are what every build with a RUN needs here."""
    with tempfile.TemporaryDirectory(prefix="base-", dir=work) as folder, step(f"base image: {', '.join(BUILD_PACKAGES)} for building"):
        (Path(folder) / "Containerfile").write_text(BUILD_CONTAINERFILE.format(base=reference()), encoding="utf-8")
        argv = buildah("build", "--quiet", *flags, "--tag", build_reference(), "--file", f"{folder}/Containerfile", folder)
        run(argv, timeout_seconds=BOOTSTRAP_SECONDS)


def strip(tree: Path) -> None:
    """Empty the folders that nothing reads in a container, and keep the packages' licenses."""
    for name in UNUSED:
        shutil.rmtree(tree / name, ignore_errors=True)
        (tree / name).mkdir(parents=True)
    for path in sorted((tree / DOCUMENTATION).rglob("*"), reverse=True):
        if path.is_symlink() and path.is_dir():
            continue  # a package whose license is in another one's folder
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.name != LICENSES:
            path.unlink()
