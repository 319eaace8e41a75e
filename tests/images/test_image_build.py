"""What `make images` decides before it builds anything."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.cluster import image_base, image_build, image_manifests, image_pip, image_tools, images
from tests.cluster.errors import ClusterError
from tests.cluster.image_build import IMAGES, ROOT, Built, Image, content_key
from tests.cluster.image_manifests import Registry
from tests.cluster.image_pip import PipSettings

ONE = Image("one", "Dockerfile", ("room",))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one room, and what every image is made of."""
    for name in (*image_build.SHARED, "Dockerfile", "room/code.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == image_build.CONTRACT:
            path.mkdir()
            path = path / "names.py"
        path.write_text("[project]\nname = 'one'\n" if name == image_build.PROJECT_FILE else name, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param("room/code.py", id="its own code"),
        pytest.param("room/new.py", id="a new file of its own"),
        pytest.param("Dockerfile", id="its Dockerfile"),
        pytest.param(f"{image_build.CONTRACT}/names.py", id="the contract"),
        pytest.param("pyproject.toml", id="what the project file says of packages"),
    ],
)
def test_an_image_is_built_again_when_this_changed(tree: Path, changed: str) -> None:
    before = content_key(tree, ONE, "base")
    (tree / changed).write_text("[project]\nname = 'changed'\n", encoding="utf-8")
    assert content_key(tree, ONE, "base") != before


def test_an_image_is_built_again_on_another_base(tree: Path) -> None:
    assert content_key(tree, ONE, "base") != content_key(tree, ONE, "public")


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param("room/__pycache__/code.pyc", id="compiled files"),
        pytest.param("other/code.py", id="another room"),
        pytest.param("README.md", id="the readme"),
    ],
)
def test_an_image_is_kept_when_only_this_changed(tree: Path, changed: str) -> None:
    before = content_key(tree, ONE, "base")
    (tree / changed).parent.mkdir(exist_ok=True)
    (tree / changed).write_text("changed", encoding="utf-8")
    assert content_key(tree, ONE, "base") == before


def test_an_image_is_kept_when_a_tools_setting_in_the_project_file_changed(tree: Path) -> None:
    before = content_key(tree, ONE, "base")
    with (tree / image_build.PROJECT_FILE).open("a", encoding="utf-8") as project_file:
        project_file.write("[tool.ruff]\nline-length = 140\n")
    assert content_key(tree, ONE, "base") == before


def test_an_image_whose_input_is_missing_says_which(tree: Path) -> None:
    shutil.rmtree(tree / "room")
    with pytest.raises(ClusterError, match="image one is made from room, which is missing"):
        content_key(tree, ONE, "base")


@pytest.mark.parametrize("image", [pytest.param(image, id=name) for name, image in (IMAGES | {"engine-cuda": image_build.CUDA}).items()])
def test_every_file_that_a_dockerfile_copies_is_in_its_images_key(image: Image) -> None:
    copies = [line.split()[1:-1] for line in (ROOT / image.dockerfile).read_text().splitlines() if line.startswith("COPY ")]
    sources = {source for words in copies if not words[0].startswith("--from") for source in words}
    known = (*image_build.SHARED, *image.inputs)
    assert [source for source in sorted(sources) if not any(source == name or source.startswith(f"{name}/") for name in known)] == []


def test_an_unknown_image_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ClusterError, match="no image is called nothing; there are operator, scheduler, engine-cpu"):
        image_build.select(["nothing"])


@pytest.mark.parametrize("registry", ["https://ghcr.io/me", "ghcr.io/me:tag with space"])
def test_a_registry_that_is_none_is_refused(registry: str) -> None:
    with pytest.raises(ClusterError, match="is no registry: write host/name"):
        image_build.push([], registry)


@pytest.mark.parametrize(
    ("target", "plain"),
    [
        pytest.param("127.0.0.1:5000/team/alise-operator:dev", True, id="a registry on loopback"),
        pytest.param("localhost:5000/alise-operator:dev", True, id="by its name"),
        pytest.param("localhost.example.com/alise-operator:dev", False, id="another machine whose name begins so"),
        pytest.param("ghcr.io/me/alise-operator:dev", False, id="any other"),
    ],
)
def test_plain_http_is_for_registries_on_this_machine(target: str, plain: bool) -> None:
    assert image_tools.on_this_machine(target) is plain


TAGS = {"operator": "0a1b", "scheduler": "2c3d", "engine-cpu": "4e5f", "engine-cuda": "6789"}


def test_a_pushed_image_has_one_path_segment_below_the_registry_and_its_content_for_a_tag() -> None:
    assert Registry("ghcr.io/me/", TAGS).name("engine-cpu") == "ghcr.io/me/alise-engine-cpu:4e5f"


def test_every_image_that_is_pushed_gets_the_key_that_it_was_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pushing(image_tools.Docker):
        def push(self, reference: str, target: str, timeout_seconds: float) -> None:
            pushed.append((reference, target))

    pushed: list[tuple[str, str]] = []
    monkeypatch.setattr(image_build, "choose_builder", lambda folder: Pushing("docker"))
    registry = image_build.push([Built("operator", "localhost/alise/operator:dev", "feed", 1, None)], "ghcr.io/me")
    assert pushed == [("localhost/alise/operator:dev", "ghcr.io/me/alise-operator:feed")]
    assert set(registry.tags) == {*IMAGES, "engine-cuda"}


@pytest.mark.parametrize(
    ("image", "environ", "arguments"),
    [
        pytest.param("engine-cpu", {"TORCH_CPU_INDEX": "https://mirror/cpu"}, {"TORCH_CPU_INDEX": "https://mirror/cpu"}, id="named"),
        pytest.param("engine-cpu", {}, {}, id="the Dockerfile's own"),
        pytest.param("operator", {"TORCH_CPU_INDEX": "https://mirror/cpu"}, {}, id="an image without torch"),
    ],
)
def test_where_torch_comes_from_is_passed_on_to_the_build(image: str, environ: dict[str, str], arguments: dict[str, str]) -> None:
    assert image_build.build_arguments(IMAGES[image], environ) == arguments


def test_build_arguments_are_given_as_every_builder_takes_them() -> None:
    job = image_tools.BuildJob(Path(), "Dockerfile", "one", Path("pip.conf"), (), {"A": "1", "B": "2"})
    assert job.argument_flags() == ["--build-arg", "A=1", "--build-arg", "B=2"]


@pytest.mark.parametrize(
    ("registry", "image"),
    [
        pytest.param(None, "localhost/alise/operator:dev", id="our cluster has them under their own names"),
        pytest.param(Registry("ghcr.io/me", TAGS), "ghcr.io/me/alise-operator:0a1b", id="a user's cluster pulls them from the registry"),
    ],
)
def test_image_names_in_manifests(registry: Registry | None, image: str) -> None:
    assert image_manifests.with_registry("image: localhost/alise/operator:dev", registry) == f"image: {image}"


def test_the_manifests_for_a_registry_hold_everything_and_name_no_local_image(tmp_path: Path) -> None:
    whole, sample = image_manifests.write(image_build.ROOT / "manifests", Registry("ghcr.io/me", TAGS), tmp_path)
    kinds = [document["kind"] for document in yaml.safe_load_all(whole.read_text())]
    assert {"CustomResourceDefinition", "Namespace", "ClusterRole", "Deployment"} <= set(kinds)
    assert "ghcr.io/me/alise-engine-cuda:6789" in whole.read_text()
    assert "localhost/" not in whole.read_text() + sample.read_text()
    assert yaml.safe_load(sample.read_text())["kind"] == "AliseEngine"


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        pytest.param("/cache/operator.tar", "ctr --namespace k8s.io images import /cache/operator.tar", id="an archive, for a node"),
        pytest.param("/cache/operator.tar", "kind load image-archive /cache/operator.tar", id="an archive, for kind"),
        pytest.param("/cache/operator.tar", "minikube image load /cache/operator.tar", id="an archive, for minikube"),
        pytest.param("/cache/operator.tar", "docker build -f engine_image/Dockerfile.cuda", id="the image for GPUs"),
        pytest.param(None, "kind load docker-image localhost/alise/operator:dev", id="in docker's own store"),
    ],
)
def test_how_to_load_is_told(archive: str | None, words: str) -> None:
    assert words in image_build.how_to_load([Built("operator", "localhost/alise/operator:dev", "key", 1, archive)])


@pytest.mark.parametrize(
    ("listing", "options"),
    [
        pytest.param("", {}, id="nothing configured"),
        pytest.param("global.index-url='https://mirror/simple'", {"index-url": "https://mirror/simple"}, id="a file"),
        pytest.param(":env:.find-links='/wheels'\nglobal.find-links='/other'", {"find-links": "/wheels"}, id="the environment wins"),
        pytest.param("install.timeout='9'\nglobal.timeout='5'", {"timeout": "9"}, id="the command's section wins"),
        pytest.param("global.extra-index-url='a\\nb'", {"extra-index-url": "a b"}, id="several values on lines of their own"),
        pytest.param("global.cache-dir='/x'\nglobal.user='true'\nlist.format='json'", {}, id="what does not say where packages come from"),
    ],
)
def test_pip_settings(listing: str, options: dict[str, str]) -> None:
    assert image_pip.parse(listing).options == options


def test_folders_that_pip_takes_packages_from_are_mounted() -> None:
    settings = PipSettings({"find-links": "/wheels https://mirror/links", "extra-index-url": "file:///pypi/simple https://mirror/simple"})
    assert settings.folders() == (Path("/pypi"), Path("/wheels"))


def test_what_lies_on_this_machine_only_is_left_out_where_folders_cannot_be_mounted() -> None:
    settings = PipSettings({"index-url": "https://mirror/simple", "find-links": "/wheels https://mirror/links", "cert": "/ca.pem"})
    assert settings.portable().as_file() == "[global]\nindex-url = https://mirror/simple\nfind-links = https://mirror/links\n"


DEB822 = """Types: deb
# a comment
URIs: http://mirror/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror/security
Suites: bookworm-security
"""


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        pytest.param([DEB822], ("http://mirror/debian", "http://mirror/security"), id="stanzas"),
        pytest.param(["deb [arch=amd64] http://mirror/debian bookworm main\n"], ("http://mirror/debian", None), id="one-line list"),
        pytest.param(
            ["deb http://other/node nodistro main\n", DEB822], ("http://mirror/debian", "http://mirror/security"), id="among others"
        ),
    ],
)
def test_the_base_comes_from_the_machines_own_mirror(lists: list[str], expected: tuple[str, str | None]) -> None:
    assert image_base.mirrors(lists) == expected


def test_a_machine_without_the_suite_is_told() -> None:
    with pytest.raises(ClusterError, match="names Debian's suite 'bookworm'"):
        image_base.mirrors([DEB822.replace("bookworm", "trixie"), DEB822.replace("Types", "Enabled: no\nTypes")])


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        pytest.param("[2/5] STEP 3/4: RUN pip install\n", "[2/5] STEP 3/4: RUN pip install", id="buildah runs"),
        pytest.param("#9 [dependencies 2/3] RUN pip install\n", "#9 [dependencies 2/3] RUN pip install", id="docker runs"),
        pytest.param("Collecting torch\n", None, id="what the instruction prints"),
        pytest.param("[2/5] STEP 1/4: ENV A=b\n", None, id="an instruction that takes no time"),
    ],
)
def test_which_lines_of_a_build_are_shown(line: str, shown: str | None) -> None:
    assert image_tools.progress_line(line) == shown


def test_a_packed_archive_names_its_image_and_holds_every_blob(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    layer = hashlib.sha256(b"layer").hexdigest()
    (blobs / layer).write_bytes(b"layer")
    (blobs / "version").write_text("Directory Transport Version: 1.1\n")
    manifest = json.dumps({"mediaType": "application/vnd.oci.image.manifest.v1+json"}).encode()
    (blobs / "manifest.json").write_bytes(manifest)
    image_tools.pack_archive(blobs, "docker.io/alise/one:dev", tmp_path / "one.tar")
    digest = hashlib.sha256(manifest).hexdigest()
    assert images.archive_images(tmp_path / "one.tar") == {"docker.io/alise/one:dev": f"sha256:{digest}"}
    with tarfile.open(tmp_path / "one.tar") as tar:
        assert {f"blobs/sha256/{digest}", f"blobs/sha256/{layer}"} <= set(tar.getnames())
