"""Fetch the source package of Kubernetes from the Debian mirror this machine already uses.

The system's own package lists are only read: their source lines are rewritten into private lists in our cache, so the mirror, its
keys and its proxy settings stay those of the machine. apt-get checks every signature and checksum. `build.py` calls it.
"""

import re
import tarfile
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.errors import ClusterError
from tests.cluster.progress import step

DOWNLOAD_SECONDS = 900
PACKAGE = "kubernetes"


def deb822_sources(text: str) -> str:
    """The stanzas of a `.sources` file that list binary packages, rewritten to list their source packages.

    Stanzas that are disabled are dropped; an inline key, a suite and every other field stay as they are.
    """
    stanzas = []
    for stanza in re.split(r"\n\s*\n", text):
        lines = [line for line in stanza.splitlines() if not line.startswith("#")]
        fields = {line.split(":", 1)[0].strip().lower(): line.split(":", 1)[1].strip() for line in lines if re.match(r"[A-Za-z-]+:", line)}
        if "types" not in fields or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        rewritten = ["Types: deb-src" if line.lower().startswith("types:") else line for line in lines]
        stanzas.append("\n".join(line for line in rewritten if line.strip()))
    return "\n\n".join(stanzas) + ("\n" if stanzas else "")


def classic_sources(text: str) -> str:
    """The `deb` lines of a one-line-per-source list, as `deb-src` lines; existing `deb-src` lines stay."""
    lines = []
    for line in text.splitlines():
        stripped = line.split("#", 1)[0].strip()
        if re.match(r"deb(-src)?\s", stripped):
            lines.append(re.sub(r"^deb(-src)?\s+", "deb-src ", stripped))
    return "\n".join(dict.fromkeys(lines)) + ("\n" if lines else "")


def private_lists(system: Path, private: Path) -> None:
    """Write into `private` a source list for every list in `system` (a folder like `/etc/apt`). Raises ClusterError without any."""
    private.mkdir(parents=True, exist_ok=True)
    for old in private.iterdir():
        old.unlink()
    for name, text in _rewritten(system):
        if text:
            (private / name).write_text(text, encoding="utf-8")
    if not any(private.iterdir()):
        raise ClusterError(f"no package source found in {system}: it needs sources.list or sources.list.d/*.sources for Debian 12")


def _rewritten(system: Path) -> Iterable[tuple[str, str]]:
    classic = [system / "sources.list", *sorted((system / "sources.list.d").glob("*.list"))]
    for path in classic:
        if path.is_file():
            yield f"{path.stem}-classic.list", classic_sources(path.read_text(encoding="utf-8"))
    for path in sorted((system / "sources.list.d").glob("*.sources")):
        yield path.name, deb822_sources(path.read_text(encoding="utf-8"))


def download(into: Path, system_lists: Path = Path("/etc/apt")) -> Path:
    """Return the upstream tarball of Kubernetes, downloaded into `into` if it is not there already."""
    already = _tarball(into)
    if already is not None:
        return already
    work = into / "apt"
    for folder in (work / "lists" / "partial", work / "cache" / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    private_lists(system_lists, work / "sources")
    options = [
        f"-oDir::Etc::sourceparts={work / 'sources'}",
        "-oDir::Etc::sourcelist=/dev/null",
        f"-oDir::State::Lists={work / 'lists'}",
        f"-oDir::Cache={work / 'cache'}",
        "-oAPT::Sandbox::User=",  # apt's own unprivileged user cannot write below a home directory
    ]
    with step("download the source of Kubernetes"):
        run(["apt-get", "-q", *options, "update"], timeout_seconds=DOWNLOAD_SECONDS, env={"LC_ALL": "C"})
        run(
            ["apt-get", "-q", *options, "source", "--download-only", PACKAGE],
            timeout_seconds=DOWNLOAD_SECONDS,
            cwd=into,
            env={"LC_ALL": "C"},
        )
    tarball = _tarball(into)
    if tarball is None:
        raise ClusterError(f"`apt-get source {PACKAGE}` left no .orig.tar file in {into}; is the mirror Debian 12's?")
    return tarball


def _tarball(folder: Path) -> Path | None:
    # The .dsc is written last, once apt-get has checked every file it names.
    if not any(folder.glob(f"{PACKAGE}_*.dsc")):
        return None
    found = sorted(folder.glob(f"{PACKAGE}_*.orig.tar.*"))
    return found[0] if found else None


def unpack(tarball: Path, into: Path) -> None:
    """Unpack the tarball's single top folder as `into`; `into` exists only when it is whole."""
    partial = into.with_name(into.name + ".partial")
    run(["rm", "-rf", str(partial)], timeout_seconds=120)
    partial.mkdir(parents=True)
    with step("unpack the source"):
        with tarfile.open(tarball) as archive:
            archive.extractall(partial, filter="tar")
        tops = list(partial.iterdir())
        if len(tops) != 1:
            raise ClusterError(f"{tarball.name} should hold one folder, it holds {len(tops)}")
        tops[0].rename(into)
        partial.rmdir()
