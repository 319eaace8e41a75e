"""What the built images hold: what runs, its licenses, and nothing that builds. They are those that the cluster is given."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from alise_contract.names import RUN_AS
from tests.cluster import image_build
from tests.tools import sbom
from tests.tools.image_archives import archive_of
from tests.tools.image_files import ImageFiles
from tests.tools.sbom_components import LOCK, locked, python

pytestmark = pytest.mark.e2e

# Programs that build, fetch or install. apt and dpkg are Debian's own and stay; they can do nothing without root.
TOOLS = re.compile(r"/s?bin/(pip|uv|gcc|g\+\+|c\+\+|cc|cpp|make|ld|git|curl|wget|tcc|clang)[\d.-]*$")
PACKAGED_TOOLS = re.compile(r"/(site-packages|dist-packages)/(pip|uv|hatchling|wheel)(-[^/]*\.dist-info)?/|/ensurepip/")
# Folders for everyone, in which the sticky bit keeps users apart.
SHARED = {"tmp", "var/tmp", "run/lock"}
every_image = pytest.mark.parametrize("name", list(image_build.IMAGES))


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, ImageFiles]]:
    with ExitStack() as stack:
        yield {built.name: stack.enter_context(ImageFiles.open(stack.enter_context(archive_of(built)))) for built in image_build.build()}


@every_image
def test_nothing_in_an_image_builds_or_installs(images: dict[str, ImageFiles], name: str) -> None:
    assert [path for path in images[name].entries if TOOLS.search(f"/{path}") or PACKAGED_TOOLS.search(f"/{path}/")] == []


@every_image
def test_an_image_runs_as_the_user_that_the_pod_shares(images: dict[str, ImageFiles], name: str) -> None:
    assert images[name].config["config"]["User"] == f"{RUN_AS}:{RUN_AS}"


@every_image
def test_the_user_of_an_image_owns_no_file_and_may_change_none(images: dict[str, ImageFiles], name: str) -> None:
    members = {path: entry.member for path, entry in images[name].entries.items() if entry.member.isfile() or entry.member.isdir()}
    owned = [path for path, member in members.items() if RUN_AS in (member.uid, member.gid)]
    writable = [path for path, member in members.items() if member.mode & 0o002 and path not in SHARED]
    assert (owned, writable) == ([], [])


@every_image
def test_an_image_carries_our_license_and_those_of_debians_packages(images: dict[str, ImageFiles], name: str) -> None:
    assert images[name].read("usr/share/licenses/alise/LICENSE") == (image_build.ROOT / "LICENSE").read_bytes()
    assert images[name].read("usr/share/doc/base-files/copyright")


def test_the_scheduler_carries_the_license_of_its_encoder(images: dict[str, ImageFiles]) -> None:
    folder = "usr/share/licenses/all-MiniLM-L6-v2"
    assert sorted(images["scheduler"].below(folder)) == [f"{folder}/LICENSE", f"{folder}/encoder.NOTICE"]


@every_image
def test_an_image_holds_its_locked_packages_and_ours_alone(images: dict[str, ImageFiles], name: str) -> None:
    # Without the copies that setuptools carries in itself; the bill names them.
    entries = {path: entry for path, entry in images[name].entries.items() if "/_vendor/" not in path}
    found = python(replace(images[name], entries=entries))
    installed = {(component.purl.name, component.version) for component in found if component.purl is not None}
    ours = {("alise", "0.1.0"), *([("vllm", "0.32.0+cpu")] if name == "engine-cpu" else [])}
    assert installed - ours == set(locked(images[name].read(LOCK).decode()))


@every_image
def test_the_bill_of_an_image_is_valid_and_names_debians_packages(images: dict[str, ImageFiles], name: str) -> None:
    assert '"pkg:deb/debian/base-files@' in sbom.document(images[name])
