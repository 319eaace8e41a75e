"""`make images`: build alise's images, once per content.

On Debian 12 as root no registry is needed: debootstrap builds the base, buildah builds in a storage of its own below the cache, and
every image is written as an archive that `ctr images import` takes. Elsewhere docker, podman or buildah builds from the public bases
that the Dockerfiles name. `IMAGE_REGISTRY=host/name` tags the images with their content and pushes them for a cluster of the user's own.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster import image_base, image_manifests, image_pip, packages
from tests.cluster.cache import cache_dir, locked
from tests.cluster.commands import run
from tests.cluster.errors import ClusterError, UnsupportedMachine
from tests.cluster.image_manifests import Registry
from tests.cluster.image_tools import Buildah, Builder, BuildJob, choose_builder
from tests.cluster.progress import say, step

ROOT = Path(__file__).resolve().parents[2]
PROJECT_FILE = "pyproject.toml"
CONTRACT = "engine_image/alise_contract"
# What every image is made of, beside its own room.
SHARED = (PROJECT_FILE, "requirements-build.lock", "LICENSE", ".dockerignore", CONTRACT)
BUILD_SECONDS = 1800
EXPORT_SECONDS = 600
PUSH_SECONDS = 1800
LOCAL_PACKAGES = ("buildah", "debootstrap", "ca-certificates")


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its short name, its Dockerfile, and every path (relative to the repository) that decides what is in it."""

    name: str
    dockerfile: str
    inputs: tuple[str, ...]

    @property
    def reference(self) -> str:
        """Its full name in a cluster that has it imported."""
        return f"{image_manifests.LOCAL}{self.name}:dev"


IMAGES = {
    image.name: image
    for image in (
        Image("operator", "operator/Dockerfile", ("operator/requirements.lock", "operator/alise_operator", "operator/alise_picker")),
        Image(
            "scheduler",
            "scheduler_sidecar/Dockerfile",
            (
                *(f"scheduler_sidecar/{name}" for name in ("requirements.lock", "encoder.lock", "encoder.NOTICE")),
                *(f"scheduler_sidecar/{name}.py" for name in ("fetch_encoder", "export_encoder", "narrow_encoder")),
                "scheduler_sidecar/alise_scheduler",
            ),
        ),
        Image(
            "engine-cpu",
            "engine_image/Dockerfile",
            ("engine_image/requirements-cpu.lock", "engine_image/vllm_metadata", "engine_image/alise_engine"),
        ),
    )
}

# On the official vLLM image, which no package registry has: the user builds it, by the command that is printed.
CUDA = Image("engine-cuda", "engine_image/Dockerfile.cuda", ("engine_image/requirements-cuda.lock", "engine_image/alise_engine"))
TORCH_INDEX = "TORCH_CPU_INDEX"


@dataclass(frozen=True, slots=True)
class Built:
    """A built image. `archive` is what `ctr images import` takes, or None when it lies in docker's or podman's own store."""

    name: str
    reference: str
    key: str
    size_bytes: int
    archive: str | None


def content_key(root: Path, image: Image, base: str) -> str:
    """A hash of everything that decides what is in the image. Raises ClusterError when an input is missing."""
    digest = hashlib.sha256(f"{image.reference} {base}\n".encode())
    for name in (image.dockerfile, *SHARED, *image.inputs):
        path = root / name
        if not path.exists():
            raise ClusterError(f"image {image.name} is made from {name}, which is missing below {root}")
        for file in sorted(_files(path)):
            digest.update(f"{file.relative_to(root)} {file.stat().st_mode & 0o111:o}\n".encode())
            content = packaging_part(file.read_bytes()) if name == PROJECT_FILE else file.read_bytes()
            digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def content_keys(builder: Builder) -> dict[str, str]:
    """The key of every image that this builder would make, and of the one for GPUs."""
    base = f"{image_base.reference()} {image_base.build_reference()}" if builder.local else "public"
    return {image.name: content_key(ROOT, image, base) for image in IMAGES.values()} | {CUDA.name: content_key(ROOT, CUDA, "public")}


def packaging_part(project_file: bytes) -> bytes:
    """What of a pyproject.toml can change a wheel; a new linter setting builds no image again."""
    found = tomllib.loads(project_file.decode())
    parts = {"build": found.get("build-system"), "project": found.get("project"), "hatch": found.get("tool", {}).get("hatch")}
    return json.dumps(parts, sort_keys=True).encode()


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    return (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def select(names: Sequence[str]) -> list[Image]:
    """The images with these names, all of them without any. Raises ClusterError for a name that is none."""
    unknown = [name for name in names if name not in IMAGES]
    if unknown:
        raise ClusterError(f"no image is called {', '.join(unknown)}; there are {', '.join(IMAGES)}")
    return [IMAGES[name] for name in (names or IMAGES)]


def images_dir() -> Path:
    """Where archives, records and buildah's storage lie."""
    return cache_dir() / "images"


def build(names: Sequence[str] = ()) -> list[Built]:
    """Build what changed of the named images (all without names) and return them all; nothing is run when nothing changed.

    Raises UnsupportedMachine when nothing here can build an image, CommandFailed when a build fails.
    """
    chosen = select(names)
    images_dir().mkdir(parents=True, exist_ok=True)
    with locked(images_dir() / "lock"):
        for pattern in ("export-*", "base-*"):  # what a build that was killed left
            for left in images_dir().glob(pattern):
                shutil.rmtree(left)
        builder = choose_builder(images_dir())
        keys = content_keys(builder)
        fresh = {image.name: _recorded(image, keys[image.name], builder) for image in chosen}
        if not all(fresh.values()) and builder.local:
            packages.install(LOCAL_PACKAGES)
            builder.ensure_base()
        return [fresh[image.name] or _build_one(image, keys[image.name], builder) for image in chosen]


def _record_path(image: Image) -> Path:
    return images_dir() / f"{image.name}.json"


def _recorded(image: Image, key: str, builder: Builder) -> Built | None:
    """The image as built before, if it was built from the same content and still is there."""
    path = _record_path(image)
    if not path.exists():
        return None
    built = Built(**json.loads(path.read_text(encoding="utf-8")))
    there = Path(built.archive).exists() if built.archive else builder.has(built.reference)
    return built if built.key == key and there and (built.archive is not None) == builder.local else None


def _build_one(image: Image, key: str, builder: Builder) -> Built:
    began = time.monotonic()
    _record_path(image).unlink(missing_ok=True)
    say(f"image {image.reference}")
    pip = image_pip.of_this_machine()
    if not builder.mounts and pip.folders():
        say(f"  {builder.name} cannot mount {', '.join(map(str, pip.folders()))} into a build; packages come from pip's other places")
    with tempfile.TemporaryDirectory(prefix="alise-build-") as folder:
        secret = Path(folder) / "pip.conf"
        secret.write_text((pip if builder.mounts else pip.portable()).as_file(), encoding="utf-8")
        folders = pip.folders() if builder.mounts else ()
        builder.build(BuildJob(ROOT, image.dockerfile, image.reference, secret, folders, build_arguments(image)), BUILD_SECONDS)
    archive, size = builder.take_out(image.reference, images_dir() / f"{image.name}.tar", EXPORT_SECONDS)
    built = Built(image.name, image.reference, key, size, str(archive) if archive else None)
    _record_path(image).write_text(json.dumps(asdict(built)), encoding="utf-8")
    say(f"  {image.reference}: {size / 1e6:.0f} MB, {time.monotonic() - began:.0f} s")
    return built


def build_arguments(image: Image, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the user sets for a build: where torch's CPU build comes from, for the image that has it."""
    return {TORCH_INDEX: environ[TORCH_INDEX]} if environ.get(TORCH_INDEX) and image.name == "engine-cpu" else {}


def push(built: Sequence[Built], where: str) -> Registry:
    """Tag with the content and push to the user's registry. Credentials are the builder's own (`buildah`, `docker` or `podman login`)."""
    if not re.fullmatch(r"[a-zA-Z0-9.:_/-]+", where) or "://" in where:
        raise ClusterError(f"IMAGE_REGISTRY={where!r} is no registry: write host/name without a scheme, like ghcr.io/me")
    builder = choose_builder(images_dir())
    registry = Registry(where, content_keys(builder) | {item.name: item.key for item in built})
    for item in built:
        target = registry.name(item.name)
        with step(f"push {target}"):
            builder.push(item.reference, target, PUSH_SECONDS)
    return registry


def how_to_load(built: Sequence[Built]) -> str:
    """What to type to get the images into a cluster, when they were not pushed."""
    archives = [item.archive for item in built if item.archive]
    references = " ".join(item.reference for item in built)
    if archives:
        lines = ["To load them on a node (`make run` does this for its own cluster), into kind, or into minikube:"]
        for command in ("ctr --namespace k8s.io images import", "kind load image-archive", "minikube image load"):
            lines += [f"  {command} {archive}" for archive in archives]
    else:
        lines = ["To load them:", f"  kind load docker-image {references}", "  (or minikube image load, k3d image import)"]
        lines += ["With Podman and no program called docker, for each of them: podman save -o FILE IMAGE, kind load image-archive FILE"]
    lines.append("To push them to a registry that your cluster can reach: make images IMAGE_REGISTRY=host/name")
    lines += how_to_build_cuda(CUDA.reference)
    return "\n".join(lines)


def how_to_build_cuda(reference: str) -> list[str]:
    """What to type for the image that engines on GPUs need."""
    command = f"  docker build -f {CUDA.dockerfile} -t {reference} ."
    return ["For engines on GPUs, where the official vLLM image can be pulled:", command]


def how_to_apply(registry: Registry) -> str:
    """What to type when the images are in the user's registry; the manifests that name them are written to dist/."""
    lines = ["To use them:"]
    lines += [f"  kubectl apply -f {path.relative_to(ROOT)}" for path in image_manifests.write(ROOT / "manifests", registry, ROOT / "dist")]
    values = image_manifests.write_values(ROOT / "manifests", registry, ROOT / "dist")
    lines += ["Or, with Helm in place of the first one:"]
    lines += [f"  helm install alise manifests/chart -n alise-system --create-namespace -f {values.relative_to(ROOT)}"]
    cuda = registry.name(CUDA.name)
    lines += [*how_to_build_cuda(cuda), f"  docker push {cuda}"]
    return "\n".join(lines)


def table(built: Sequence[Built]) -> str:
    """One line per image with its size."""
    width = max(len(item.reference) for item in built)
    return "\n".join(f"{item.reference:<{width}}  {item.size_bytes / 1e6:8.1f} MB" for item in built)


def figures(built: Sequence[Built]) -> Mapping[str, float]:
    """Uncompressed sizes in megabytes, named as the benchmarks name figures."""
    return {f"image_{item.name.replace('-', '_')}_mb": round(item.size_bytes / 1e6, 1) for item in built}


def clean() -> None:
    """Remove every built image and buildah's storage."""
    with locked(images_dir() / "lock"):
        storage = Buildah.in_folder(images_dir())
        if shutil.which("buildah") and storage.root.exists():
            run([*storage.argv("rm"), "--all"], timeout_seconds=120)
            run([*storage.argv("rmi"), "--all", "--force"], timeout_seconds=300)
        for entry in images_dir().iterdir():
            if entry.name != "lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.image_build", description="Build alise's images, once per content.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones, all by default: {', '.join(IMAGES)}")
    parser.add_argument("--clean", action="store_true", help="remove every built image and the builder's storage")
    options = parser.parse_args(argv)
    # Ended from outside, it ends what it started, as with Ctrl-C: those have process groups of their own.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    try:
        if options.clean:
            clean()
            return 0
        built = build(options.names)
        print(table(built), flush=True)
        where = os.environ.get("IMAGE_REGISTRY", "")
        print(how_to_apply(push(built, where)) if where else how_to_load(built), flush=True)
    except (ClusterError, UnsupportedMachine) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
