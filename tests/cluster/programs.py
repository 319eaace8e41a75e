"""Which programs make the control plane: ours from Debian's source, or those of `KUBEBUILDER_ASSETS`.

`control_plane.py` and whatever runs kubectl ask it.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import build, packages
from tests.cluster.errors import UnsupportedMachine

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the programs. Without a controller manager nothing reconciles built-in kinds (no ReplicaSets, no garbage collection)."""

    etcd: Path
    apiserver: Path
    controller_manager: Path | None
    built_here: bool


def assets(folder: Path) -> Programs:
    """The programs in a folder that follows the envtest convention. Raises UnsupportedMachine when it lacks one."""
    for name in ("etcd", "kube-apiserver"):
        if not os.access(folder / name, os.X_OK):
            raise UnsupportedMachine(f"{ASSETS_VARIABLE}={folder} has no program {name!r}; it must hold `etcd` and `kube-apiserver`")
    manager = folder / "kube-controller-manager"
    return Programs(folder / "etcd", folder / "kube-apiserver", manager if os.access(manager, os.X_OK) else None, built_here=False)


def control_plane_programs() -> Programs:
    """The programs to use, built and installed if need be."""
    chosen = os.environ.get(ASSETS_VARIABLE)
    if chosen:
        return assets(Path(chosen).expanduser().absolute())
    packages.install(packages.CONTROL_PLANE)
    binaries = build.build()
    etcd = shutil.which("etcd")
    if etcd is None:
        raise UnsupportedMachine("etcd is not on PATH although etcd-server is installed; put /usr/bin on PATH")
    return Programs(Path(etcd), binaries.path("kube-apiserver"), binaries.path("kube-controller-manager"), built_here=True)


def kubectl_path(of_user: bool = False) -> str:
    """For a user's own cluster the kubectl on PATH, which fits it; for ours its own, so that nothing depends on what else is installed.

    Raises ClusterError when there is none.
    """
    built = build.Binaries(build.build_dir() / "bin")
    chosen = Path(os.environ.get(ASSETS_VARIABLE) or built.folder).expanduser() / "kubectl"
    own = [str(path) for path in (chosen, built.folder / "kubectl") if os.access(path, os.X_OK)]
    on_path = [path] if (path := shutil.which("kubectl")) else []
    return next(iter([*on_path, *own] if of_user else [*own, *on_path]), None) or str(built.path("kubectl"))
