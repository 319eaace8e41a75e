"""Run checkov's rules for Kubernetes over manifests: `findings(manifests)`.

checkov needs about a hundred packages, in versions that do not agree with ours, so it is installed in an environment of its own below
$ALISE_CACHE, from tests/tools/checkov.lock. It asks nothing over the network. `tests/bench/manifests.py` calls it.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.cache import cache_dir, locked
from tests.tools.manifests import Finding, Manifest

LOCK: Final = Path(__file__).with_suffix(".lock")
INSTALL_SECONDS: Final = 900.0
RUN_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Skip:
    """A rule that does not hold for some objects, and why. The objects are those whose `origin: Kind name` matches from its start."""

    check: str
    objects: str
    why: str


OPERATOR: Final = r"manifests\b[^:]*: Deployment alise-operator$"
ENGINES: Final = r"manifests/samples/[^:]*: Deployment "
SKIPS: Final[Sequence[Skip]] = (
    Skip(
        "CKV_K8S_11", OPERATOR, "A CPU limit stops a process that others would leave the core to; the operator's request keeps its share."
    ),
    Skip("CKV_K8S_11", ENGINES, "How much CPU an engine may take is the user's choice, in engine.resources; a limit would stall streams."),
    Skip("CKV_K8S_15", OPERATOR, "An image that was loaded into a node cannot be pulled; a pushed one has its content for a tag."),
    Skip("CKV_K8S_15", ENGINES, "An image that was loaded into a node cannot be pulled; a pushed one has its content for a tag."),
    Skip("CKV_K8S_43", OPERATOR, "These names are of images that the user builds; their digests are known after that."),
    Skip("CKV_K8S_43", ENGINES, "These names are of images that the user builds; their digests are known after that."),
    Skip("CKV_K8S_38", OPERATOR, "The operator talks to the API server with its token. Engines have none."),
)


def program() -> Path:
    """checkov's program, installed on first use. Raises CalledProcessError when its packages cannot be had."""
    name = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = cache_dir() / "checkov" / name
    with locked(home.parent / "lock"):
        done = home / "installed"
        if not done.exists():
            venv.create(home, with_pip=True, clear=True)
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(LOCK)], check=True, timeout=INSTALL_SECONDS)
            done.touch()
    return home / "bin" / "checkov"


def findings(manifests: Sequence[Manifest], skips: Sequence[Skip] = SKIPS) -> list[Finding]:
    """What checkov has against the manifests, without what is skipped; a skip that matches nothing is a finding too."""
    raw = run(manifests)
    used = {skip for finding in raw for skip in skips if covers(skip, finding)}
    idle = [Finding(skip.objects, skip.check, "this skip matches nothing; remove it") for skip in skips if skip not in used]
    return [finding for finding in raw if not any(covers(skip, finding) for skip in skips)] + idle


def covers(skip: Skip, finding: Finding) -> bool:
    """Whether a skip is for this finding."""
    return skip.check == finding.check and re.match(skip.objects, finding.manifest) is not None


def run(manifests: Sequence[Manifest]) -> list[Finding]:
    """Everything that checkov has against the manifests."""
    with tempfile.TemporaryDirectory() as folder:
        # Rules may look at several objects of a folder together: those of one origin are one folder.
        for number, manifest in enumerate(manifests):
            path = Path(folder) / f"{_slug(manifest.origin)}" / f"{number}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(yaml.safe_dump(manifest.body), encoding="utf-8")
        found: list[Finding] = []
        for origin in sorted({manifest.origin for manifest in manifests}):
            found += _of_folder(Path(folder) / _slug(origin), manifests)
        return found


def _of_folder(folder: Path, manifests: Sequence[Manifest]) -> Iterable[Finding]:
    words = [str(program()), "--directory", str(folder), "--framework", "kubernetes", "--output", "json", "--quiet", "--compact"]
    words += ["--skip-download", "--soft-fail"]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=RUN_SECONDS, env=_environment())
    report: Any = json.loads(done.stdout)
    for result in [report] if isinstance(report, dict) else report:
        for failed in result.get("results", {}).get("failed_checks", []):
            number = int(Path(failed["file_path"]).stem)
            yield Finding(manifests[number].name, failed["check_id"], failed["check_name"])


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("BC_", "CKV_", "PRISMA_", "PYTHON"))}


def _slug(origin: str) -> str:
    return re.sub(r"\W+", "-", origin)
