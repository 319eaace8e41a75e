"""The programs that build images, behind one interface: buildah with our own base, or docker, podman or buildah with public ones.

`image_build.py` calls it.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.cluster import image_base, packages
from tests.cluster.commands import TAIL_CHARACTERS, run
from tests.cluster.errors import CommandFailed, UnsupportedMachine
from tests.cluster.progress import say, step

CERTIFICATES = Path("/etc/ssl/certs")
ASK_SECONDS = 20


@dataclass(frozen=True, slots=True)
class BuildJob:
    """One build: the context folder, the Dockerfile in it, the image's name, a pip.conf, folders that it names, and build arguments."""

    context: Path
    dockerfile: str
    reference: str
    pip_conf: Path
    folders: tuple[Path, ...]
    arguments: Mapping[str, str] = field(default_factory=dict)

    def argument_flags(self) -> list[str]:
        """The build arguments as every builder takes them."""
        return [word for name, value in self.arguments.items() for word in ("--build-arg", f"{name}={value}")]


class Builder(Protocol):
    """What builds, keeps and pushes images."""

    @property
    def name(self) -> str:
        """The program."""

    @property
    def local(self) -> bool:
        """Whether it builds on our own base and keeps images where only archives get out."""

    @property
    def mounts(self) -> bool:
        """Whether a build can see folders of this machine."""

    def ensure_base(self) -> None:
        """Make the base image if it is to be ours and is not there."""

    def has(self, reference: str) -> bool:
        """Whether its store holds this image."""

    def build(self, job: BuildJob, timeout_seconds: float) -> None:
        """Build and name the image. Raises CommandFailed."""

    def take_out(self, reference: str, archive: Path, timeout_seconds: float) -> tuple[Path | None, int]:
        """Write the image as an archive if it is of no use in the builder's store. The archive and the size in bytes, uncompressed."""

    def push(self, reference: str, target: str, timeout_seconds: float) -> None:
        """Push it under another name. Raises CommandFailed."""


@dataclass(frozen=True, slots=True)
class Buildah:
    """buildah as root with chroot isolation: it needs no daemon, no cgroup and no network namespace."""

    root: Path
    runroot: Path
    work: Path
    local: bool = True
    name: str = "buildah"
    mounts: bool = True

    @classmethod
    def in_folder(cls, folder: Path) -> "Buildah":
        """One with all it keeps below this folder."""
        return cls(folder / "storage", folder / "run", folder)

    def argv(self, command: str, *arguments: str) -> list[str]:
        """The command line for our own storage, in a mount namespace of its own: its mounts end with it, also when it is killed."""
        private = ["unshare", "--mount", "--propagation", "private"]
        return [
            *private,
            "buildah",
            "--root",
            str(self.root),
            "--runroot",
            str(self.runroot),
            "--storage-driver",
            "overlay",
            command,
            *arguments,
        ]

    def ensure_base(self) -> None:
        run(self.argv("rm", "--all"), timeout_seconds=ASK_SECONDS)  # working containers of builds that were killed
        if not self.has(image_base.reference()):
            image_base.build(self.argv, self.work)
        if not self.has(image_base.build_reference()):
            image_base.build_tools(self.argv, self.work, self.flags())

    def flags(self) -> list[str]:
        """What every build needs here: no namespaces, and the machine's certificates."""
        isolation = ["--isolation", "chroot", "--network", "host"]
        return [*isolation, *(["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"] if CERTIFICATES.is_dir() else [])]

    def has(self, reference: str) -> bool:
        try:
            run(self.argv("inspect", "--type", "image", reference), timeout_seconds=ASK_SECONDS)
        except CommandFailed:
            return False
        return True

    def build(self, job: BuildJob, timeout_seconds: float) -> None:
        arguments = [*self.flags(), "--layers", "--tag", job.reference, "--file", job.dockerfile]
        for name, base in (("BASE", image_base.reference()), ("BUILD_BASE", image_base.build_reference())):
            arguments += ["--build-arg", f"{name}={base}"]
        arguments += ["--secret", f"id=pip,src={job.pip_conf}", *job.argument_flags()]
        for folder in job.folders:
            if folder.is_dir():
                arguments += ["--volume", f"{folder}:{folder}:ro"]
        stream(self.argv("build", *arguments, "."), timeout_seconds=timeout_seconds, cwd=job.context)

    def take_out(self, reference: str, archive: Path, timeout_seconds: float) -> tuple[Path | None, int]:
        with step(f"write {archive.name}"), tempfile.TemporaryDirectory(prefix="export-", dir=self.work) as folder:
            # Straight to an archive buildah compresses every layer again, a minute for torch's; a folder it leaves as it is.
            blobs = Path(folder) / "blobs"
            run(self.argv("push", "--disable-compression", "--format", "oci", reference, f"dir:{blobs}"), timeout_seconds=timeout_seconds)
            partial = Path(folder) / archive.name
            pack_archive(blobs, reference, partial)
            partial.rename(archive)
        return archive, archive.stat().st_size

    def push(self, reference: str, target: str, timeout_seconds: float) -> None:
        plain = ("--tls-verify=false",) if on_this_machine(target) else ()
        run(self.argv("push", *plain, reference, f"docker://{target}"), timeout_seconds=timeout_seconds)


@dataclass(frozen=True, slots=True)
class Docker:
    """docker, or podman with the same words; images lie in its own store, bases come from Docker Hub."""

    name: str
    local: bool = False

    @property
    def mounts(self) -> bool:
        """podman's build takes --volume, docker's does not."""
        return self.name == "podman"

    def ensure_base(self) -> None:
        return

    def has(self, reference: str) -> bool:
        try:
            run([self.name, "image", "inspect", reference], timeout_seconds=ASK_SECONDS)
        except CommandFailed:
            return False
        return True

    def build(self, job: BuildJob, timeout_seconds: float) -> None:
        arguments = ["--tag", job.reference, "--file", job.dockerfile, "--secret", f"id=pip,src={job.pip_conf}"]
        arguments += job.argument_flags()
        for folder in job.folders if self.mounts else ():
            arguments += ["--volume", f"{folder}:{folder}:ro"]
        env = {"DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
        stream([self.name, "build", *arguments, "."], timeout_seconds=timeout_seconds, cwd=job.context, env=env)

    def take_out(self, reference: str, archive: Path, timeout_seconds: float) -> tuple[Path | None, int]:
        del archive, timeout_seconds
        return None, int(run([self.name, "image", "inspect", "--format", "{{.Size}}", reference], timeout_seconds=ASK_SECONDS))

    def push(self, reference: str, target: str, timeout_seconds: float) -> None:
        run([self.name, "tag", reference, target], timeout_seconds=ASK_SECONDS)
        run([self.name, "push", target], timeout_seconds=timeout_seconds)


def on_this_machine(target: str) -> bool:
    """Whether a registry is on loopback: then it may speak plain HTTP, as docker allows there too."""
    return target.startswith(("localhost:", "localhost/", "127.0.0.1:", "127.0.0.1/"))


def pack_archive(folder: Path, reference: str, archive: Path) -> None:
    """Turn the folder that `buildah push dir:` writes into an OCI archive that says the image's full name."""
    manifest = (folder / "manifest.json").read_bytes()
    kind = json.loads(manifest)["mediaType"]
    digest = hashlib.sha256(manifest).hexdigest()
    names = {"org.opencontainers.image.ref.name": reference, "io.containerd.image.name": reference}
    entry = {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(manifest), "annotations": names}
    texts = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        f"blobs/sha256/{digest}": manifest,
    }
    with tarfile.open(archive, "w") as tar:
        for name, content in texts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for blob in sorted(folder.iterdir()):
            if len(blob.name) == len(digest):
                member = tarfile.TarInfo(f"blobs/sha256/{blob.name}")
                member.size = blob.stat().st_size
                with blob.open("rb") as content_file:
                    tar.addfile(member, content_file)


def choose_builder(folder: Path) -> Builder:
    """Our own base where the machine can make it (Debian 12, root), else docker or podman. Raises UnsupportedMachine without either."""
    try:
        packages.require_supported_machine()
    except UnsupportedMachine:
        for program in ("docker", "podman"):
            if shutil.which(program) and _answers(program):
                return Docker(program)
        raise UnsupportedMachine(
            "Images are built on Debian 12 as root, or with docker or podman; none of them is here (is docker's daemon running?)."
        ) from None
    return Buildah.in_folder(folder)


def _answers(program: str) -> bool:
    try:
        run([program, "info"], timeout_seconds=ASK_SECONDS)
    except CommandFailed:
        return False
    return True


def progress_line(line: str) -> str | None:
    """What a line of a builder's output tells the person who waits: the instruction that begins, or None."""
    text = line.strip()
    if "STEP " in text and ("RUN " in text or "COPY " in text):  # buildah, podman: [2/5] STEP 3/4: RUN …
        return text[:120]
    if text.startswith("#") and ("] RUN " in text or "] COPY " in text):  # docker: #9 [dependencies 2/3] RUN …
        return text[:120]
    return None


def stream(argv: Sequence[str], *, timeout_seconds: float, cwd: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a build and show its instructions as they begin. Raises CommandFailed with the end of its output."""
    began = time.monotonic()
    process = subprocess.Popen(
        list(argv),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    deadline = threading.Timer(timeout_seconds, _end_group, [process])
    deadline.start()
    output: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            shown = progress_line(line)
            if shown:
                say(f"  {time.monotonic() - began:4.0f} s  {shown}")
        status = process.wait()
    except BaseException:
        _end_group(process)
        raise
    finally:
        deadline.cancel()
    if status != 0:
        tail = "".join(output)[-TAIL_CHARACTERS:].rstrip()
        raise CommandFailed(f"the image build ended with status {status} after {time.monotonic() - began:.0f} s:\n{tail}")


def _end_group(process: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
