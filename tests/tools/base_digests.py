"""Renew the digests of the base images in the Dockerfiles: a part of `make lock`.

A tag moves; a digest names one image. The registry is asked by skopeo, or else by docker, with the mirrors and logins that they are
configured with. Where neither is installed or the registry cannot be reached, a digest stays as it is and the output says so.
"""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DOCKERFILES: Final = ("operator/Dockerfile", "scheduler_sidecar/Dockerfile", "engine_image/Dockerfile", "engine_image/Dockerfile.cuda")
_BASE: Final = re.compile(r"^(ARG \w*BASE=)([^\s@]+)(@sha256:[0-9a-f]{64})?$", re.MULTILINE)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
ASK_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why a digest could not be learned."""

    reason: str


# Takes a reference with a tag, gives the digest of its image index.
Ask = Callable[[str], str | Unknown]


def references(dockerfile: str) -> list[str]:
    """The base images that a Dockerfile names, with their tags and without digests."""
    return [found[2] for found in _BASE.finditer(dockerfile)]


def with_digest(dockerfile: str, reference: str, digest: str) -> str:
    """The Dockerfile with this digest wherever it names this base."""
    return _BASE.sub(lambda found: f"{found[1]}{found[2]}@{digest}" if found[2] == reference else found[0], dockerfile)


def ask(reference: str) -> str | Unknown:
    """Ask the registry for the digest of a tag; it is that of the index, which covers every architecture."""
    if shutil.which("skopeo"):
        # The digest is the checksum of the manifest as the registry sends it.
        return _run(["skopeo", "inspect", "--raw", f"docker://{reference}"], lambda sent: "sha256:" + hashlib.sha256(sent).hexdigest())
    if shutil.which("docker"):
        words = ["docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", reference]
        return _run(words, lambda sent: sent.decode().strip())
    return Unknown("install skopeo or docker to ask its registry")


def _run(words: list[str], read: Callable[[bytes], str]) -> str | Unknown:
    try:
        done = subprocess.run(words, capture_output=True, timeout=ASK_SECONDS, check=True)
    except subprocess.CalledProcessError as error:
        return Unknown(error.stderr.decode(errors="replace").strip()[-300:])
    except (OSError, subprocess.TimeoutExpired) as error:
        return Unknown(str(error))
    digest = read(done.stdout)
    return digest if _DIGEST.fullmatch(digest) else Unknown(f"{words[0]} answered {digest[:80]!r}, which is no digest")


def renew(root: Path, asking: Ask = ask) -> str:
    """Write the current digests into the Dockerfiles. Returns one line per base that says what it has now."""
    texts = {name: (root / name).read_text(encoding="utf-8") for name in DOCKERFILES}
    lines = []
    for reference in dict.fromkeys(reference for text in texts.values() for reference in references(text)):
        found = asking(reference)
        if isinstance(found, Unknown):
            lines.append(f"{reference}: left as it is ({found.reason})")
            continue
        texts = {name: with_digest(text, reference, found) for name, text in texts.items()}
        lines.append(f"{reference}: {found}")
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")
    return "\n".join(lines)
