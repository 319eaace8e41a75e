"""`make release`: what it refuses, what it writes, and that it writes the same again."""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import image_tools
from tests.cluster.errors import ClusterError
from tests.cluster.image_build import Built
from tests.tools.chart.rendering import complaints, rendered
from tests.tools.release import checks, files, images, krew, plugin
from tests.tools.release.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = "registry.test/team"
ADDRESS = "https://files.test/alise/0.1.0"
CHANGELOG = (
    "# Changelog\n\n## 0.2.0 (unreleased)\n\nNew.\n\n## 0.1.0 (2026-11-29)\n\nThe first one.\n\n### More\n\nText.\n\n## 0.0.9\n\nOld.\n"
)
PROJECT = '[project]\nname = "alise"\nversion = "0.1.0"\n'
ENVIRONMENT = {"VERSION": "0.1.0", "IMAGE_REGISTRY": REGISTRY, "RELEASE_URL": ADDRESS, "IMAGES": "0"}
GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.com")


def refused(version: str = "0.1.0", registry: str = REGISTRY, project: str = PROJECT) -> list[str]:
    return list(checks.problems(version, registry, CHANGELOG, project))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one commit that can be released."""
    root = tmp_path / "tree"
    shutil.copytree(ROOT / "manifests", root / "manifests", symlinks=True)
    (root / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    (root / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (root / ".gitignore").write_text("/dist/\n", encoding="utf-8")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "one")):
        subprocess.run([*GIT, *words], cwd=root, check=True, timeout=60)
    return root


def released(tree: Path, name: str = "release") -> dict[str, bytes]:
    """The files of a release without images."""
    folder = tree / "dist" / name
    assert main(ENVIRONMENT, tree, folder) == 0
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_keeps_a_version_with_a_date_from_being_released() -> None:
    assert refused() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param({"version": ""}, "VERSION is missing: make release VERSION=", id="no version"),
        pytest.param({"version": "one"}, "VERSION='one' is no version", id="a word for a version"),
        pytest.param({"version": "0.3.0"}, "CHANGELOG.md has no section for 0.3.0", id="a version that CHANGELOG does not have"),
        pytest.param({"version": "0.2.0"}, "CHANGELOG.md calls 0.2.0 unreleased", id="a version without a date"),
        pytest.param({"project": PROJECT.replace("0.1.0", "0.4.0")}, "pyproject.toml has the version 0.4.0", id="another version"),
        pytest.param({"registry": ""}, "IMAGE_REGISTRY is missing: make release", id="no registry"),
        pytest.param({"registry": "https://a.test/b"}, "IMAGE_REGISTRY='https://a.test/b' is no registry", id="a registry with a scheme"),
    ],
)
def test_a_release_is_refused_with_a_sentence(arguments: dict[str, Any], said: str) -> None:
    assert refused(**arguments)[0].startswith(said)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        pytest.param("", "RELEASE_URL is missing: name the folder", id="none"),
        pytest.param("http://a.test", "RELEASE_URL='http://a.test' is no address", id="without TLS, which krew refuses"),
    ],
)
def test_the_place_of_the_files_is_named(address: str, said: str) -> None:
    assert [one.startswith(said) for one in checks.of_address(address)] == [True]
    assert list(checks.of_address(ADDRESS)) == []


def test_the_krew_manifest_names_the_archive_and_its_checksum(tmp_path: Path) -> None:
    krew.write(ROOT, "0.1.0", ADDRESS + "/", tmp_path)
    (platform,) = yaml.safe_load((tmp_path / "alise.krew.yaml").read_text(encoding="utf-8"))["spec"]["platforms"]
    archive = tmp_path / "kubectl-alise-0.1.0.tar.gz"
    assert platform["uri"] == f"{ADDRESS}/{archive.name}"
    assert platform["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    with tarfile.open(archive) as opened:
        assert opened.getnames() == [platform["bin"], "LICENSE", "LICENSE.click"]
    assert krew.packed(ROOT, "0.1.0") == archive.read_bytes()


@pytest.mark.process
def test_the_program_of_the_krew_archive_needs_nothing_but_python(tmp_path: Path) -> None:
    krew.write(ROOT, "0.1.0", ADDRESS, tmp_path)
    with tarfile.open(tmp_path / "kubectl-alise-0.1.0.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    # -I and -S: no package of this environment can be found.
    words = [sys.executable, "-I", "-S", str(tmp_path / "kubectl-alise")]
    for flag, begins in (("--help", "Usage: kubectl alise"), ("--version", "kubectl alise, version 0.1.0\n")):
        done = subprocess.run([*words, flag], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.startswith(begins)


def test_the_notes_are_the_versions_section() -> None:
    assert checks.notes("0.1.0", CHANGELOG) == "## 0.1.0 (2026-11-29)\n\nThe first one.\n\n### More\n\nText.\n"


@pytest.mark.process
def test_changes_that_are_not_committed_are_refused(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "CHANGELOG.md").write_text(CHANGELOG + "\n", encoding="utf-8")
    assert main(ENVIRONMENT, tree, tree / "dist" / "release") == 1
    assert capsys.readouterr().err.startswith("the work tree has changes that are not committed, CHANGELOG.md first of 1")
    assert not (tree / "dist").exists()


@pytest.mark.process
def test_two_runs_give_the_same_bytes(tree: Path) -> None:
    assert released(tree) == released(tree, "again")


@pytest.mark.process
def test_a_release_has_its_files_and_their_checksums(tree: Path) -> None:
    found = released(tree)
    assert set(found) == {"alise.yaml", "tiny.yaml", "aliseengines.yaml", "alise-0.1.0.tgz", "RELEASE_NOTES.md", "SHA256SUMS"}
    sums = found.pop("SHA256SUMS").decode()
    assert sums == "".join(f"{hashlib.sha256(found[name]).hexdigest()}  {name}\n" for name in sorted(found))


@pytest.mark.process
def test_every_image_of_a_release_has_the_version_for_its_tag(tree: Path) -> None:
    found = released(tree)
    with tarfile.open(fileobj=io.BytesIO(found["alise-0.1.0.tgz"])) as archive:
        member = archive.extractfile("alise/values.yaml")
        assert member is not None
        images = yaml.safe_load(member.read())["images"]
    assert images == {
        "operator": f"{REGISTRY}/alise-operator:0.1.0",
        "engineCuda": f"{REGISTRY}/alise-engine-cuda:0.1.0",
        "engineCpu": f"{REGISTRY}/alise-engine-cpu:0.1.0",
        "scheduler": f"{REGISTRY}/alise-scheduler:0.1.0",
    }
    for image in images.values():
        assert image.encode() in found["alise.yaml"]
    assert b"localhost/" not in b"".join(found.values())


def test_the_images_are_pushed_with_the_version_for_their_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pushing(image_tools.Docker):
        def push(self, reference: str, target: str, timeout_seconds: float) -> None:
            pushed.append((reference, target))

    pushed: list[tuple[str, str]] = []
    monkeypatch.setattr(images, "choose_builder", lambda folder: Pushing("docker"))
    built = Built("operator", "localhost/alise/operator:dev", "feed", 1, None)
    images.push([built], files.registry_of("0.1.0", REGISTRY))
    assert pushed == [("localhost/alise/operator:dev", f"{REGISTRY}/alise-operator:0.1.0")]


@pytest.mark.process
def test_the_wheel_is_the_same_every_time_and_holds_the_plugin(tmp_path: Path) -> None:
    first, again = (plugin.write_wheel(ROOT, 1_700_000_000, tmp_path / name) for name in ("first", "again"))
    assert first.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(first) as wheel:
        assert "kubectl_alise/__main__.py" in wheel.namelist()


@pytest.mark.process
def test_a_wheel_that_cannot_be_built_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project", encoding="utf-8")
    with pytest.raises(ClusterError, match="the wheel cannot be built: "):
        plugin.write_wheel(tmp_path, 1_700_000_000, tmp_path / "wheel")


@pytest.mark.process
def test_helm_takes_the_packed_chart(tree: Path) -> None:
    released(tree)
    chart = tree / "dist" / "release" / "alise-0.1.0.tgz"
    assert complaints(chart) == []
    (operator,) = [one for one in rendered(chart=chart) if one["kind"] == "Deployment"]
    assert operator["spec"]["template"]["spec"]["containers"][0]["image"] == f"{REGISTRY}/alise-operator:0.1.0"
