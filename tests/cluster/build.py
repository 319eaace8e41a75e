"""Compile Kubernetes 1.20.2 with Debian's Go 1.19, once; the binaries stay in the cache.

Three things differ from upstream's own build. GOPATH mode, because module mode refuses the old go.mod under Go 1.19. The vendored
reflect2 is replaced by Debian's, because the old one breaks under Go >= 1.18: the API server would die at the first custom resource
("fatal error: fault" in reflect2.(*UnsafeMapType)). And two periods of kubelet are shorter, see KUBELET_PERIODS. `cli.py`, `cluster.py` and
`programs.py` call it.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import packages, sources
from tests.cluster.cache import cache_dir, locked
from tests.cluster.commands import run
from tests.cluster.errors import ClusterError
from tests.cluster.progress import say, step

VERSION = "1.20.2"
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager")
NODE = ("kube-scheduler", "kubelet", "kube-proxy")
GO = Path("/usr/lib/go-1.19/bin/go")  # where Debian's golang-1.19-go lies; it is not on PATH
REFLECT2 = "github.com/modern-go/reflect2"
# kubelet 1.20 keeps a deleted pod's object until its sandbox has been collected, which it does once a minute, and looks for such pods
# every 10 s. Later versions remove it within a second or two, and what waits for a deletion should see that.
KUBELET_PERIODS = (
    ("pkg/kubelet/kubelet.go", "ContainerGCPeriod = time.Minute", "ContainerGCPeriod = 2 * time.Second"),
    ("pkg/kubelet/status/status_manager.go", "const syncPeriod = 10 * time.Second", "const syncPeriod = 2 * time.Second"),
)
# The API server says its version at /version from client-go's package, everything else from component-base's.
VERSION_PACKAGES = ("k8s.io/kubernetes/vendor/k8s.io/component-base/version", "k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version")
LINK_FLAGS = "-s -w" + "".join(
    f" -X {package}.{name}={value}"
    for package in VERSION_PACKAGES
    for name, value in (("gitVersion", f"v{VERSION}"), ("gitMajor", "1"), ("gitMinor", "20"), ("gitTreeState", "clean"))
)
# Changes when the way of building changes, so that a cache of another way is not taken for this one.
RECIPE = f"{VERSION} {LINK_FLAGS} {REFLECT2} openapi {KUBELET_PERIODS}"
COMPILE_SECONDS = 2400


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with the programs of Kubernetes."""

    folder: Path

    def path(self, name: str) -> Path:
        """Raises ClusterError when the folder has no such program."""
        found = self.folder / name
        if not os.access(found, os.X_OK):
            raise ClusterError(f"no program {name} in {self.folder}; remove the folder and run `python -m tests.cluster build`")
        return found


def build_dir() -> Path:
    """Where this version's binaries lie, built or not."""
    key = hashlib.sha256(RECIPE.encode()).hexdigest()[:8]
    return cache_dir() / "kubernetes" / f"{VERSION}-{key}"


def build() -> Binaries:
    """Return the binaries, building what is missing. A second call does nothing; a build that was cut short goes on where it was."""
    target = build_dir()
    wanted = [*CONTROL_PLANE, *NODE, "kubectl"]
    binaries = Binaries(target / "bin")
    if all((binaries.folder / name).exists() for name in wanted):
        return binaries
    packages.install(packages.BUILD)
    with locked(target.with_suffix(".lock")):
        missing = [name for name in wanted if not (binaries.folder / name).exists()]
        if missing:
            say(f"Kubernetes {VERSION}: building {', '.join(missing)} (once, about 4 minutes on 2 cores)")
            _compile(target, missing)
    return binaries


def _compile(target: Path, names: list[str]) -> None:
    gopath = target / "gopath"
    tree = gopath / "src" / "k8s.io" / "kubernetes"
    target.mkdir(parents=True, exist_ok=True)
    (target / "bin").mkdir(exist_ok=True)
    if not tree.exists():
        sources.unpack(sources.download(target), tree)
    environment = {
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
        "GOPATH": str(gopath),
        "GOCACHE": str(target / "go-cache"),
        "GOTOOLCHAIN": "local",
    }
    _replace_reflect2(tree)
    _shorten_periods(tree)
    if "kube-apiserver" in names:
        _generate_openapi(tree, gopath, environment)
    for name in names:
        with step(f"compile {name}"):
            _go_build(f"k8s.io/kubernetes/cmd/{name}", target / "bin" / name, environment)
    # A hundred thousand files take a minute to remove, and there is no need to wait for it; another build must not find half of them.
    spent = Path(tempfile.mkdtemp(prefix="spent-", dir=target))
    for folder in ("gopath", "go-cache", "tools", "apt"):
        if (target / folder).exists():
            (target / folder).rename(spent / folder)
    subprocess.Popen(["nice", "-n", "19", "rm", "-rf", str(spent)], start_new_session=True, stdin=subprocess.DEVNULL)


def _go_build(package: str, output: Path, environment: dict[str, str]) -> None:
    partial = output.with_name(output.name + ".partial")
    run([str(GO), "build", "-ldflags", LINK_FLAGS, "-o", str(partial), package], timeout_seconds=COMPILE_SECONDS, env=environment)
    partial.rename(output)


def _replace_reflect2(tree: Path) -> None:
    shipped = Path("/usr/share/gocode/src") / REFLECT2
    if not shipped.is_dir():
        raise ClusterError(f"{shipped} is missing; install golang-github-modern-go-reflect2-dev")
    vendored = tree / "vendor" / REFLECT2
    shutil.rmtree(vendored, ignore_errors=True)
    shutil.copytree(shipped, vendored, ignore=shutil.ignore_patterns("*_test.go"))


def _shorten_periods(tree: Path) -> None:
    for name, old, new in KUBELET_PERIODS:
        path = tree / name
        text = path.read_text(encoding="utf-8")
        if text.count(new) == 1:  # a build that was cut short has done it already
            continue
        if text.count(old) != 1:
            raise ClusterError(f"{name} of Kubernetes {VERSION} should hold {old!r} once; is the source another version?")
        path.write_text(text.replace(old, new), encoding="utf-8")


def marked_packages(tree: Path) -> list[str]:
    """Import paths of every package under `tree` that asks for an OpenAPI definition, sorted."""
    unwanted = {"testdata", "examples", "code-generator", "_examples"}
    found = set()
    for top in (tree / "pkg", tree / "staging" / "src" / "k8s.io"):
        for path in top.rglob("*.go"):
            folder = path.parent.relative_to(tree)
            if unwanted.intersection(folder.parts) or any(part.startswith("sample-") for part in folder.parts):
                continue
            if b"+k8s:openapi-gen=" in path.read_bytes():
                text = folder.as_posix()
                found.add("k8s.io/kubernetes/" + (text.replace("staging/src/", "vendor/", 1) if text.startswith("staging/src/") else text))
    return sorted(found)


def _generate_openapi(tree: Path, gopath: Path, environment: dict[str, str]) -> None:
    generator = gopath.parent / "tools" / "openapi-gen"
    generator.parent.mkdir(exist_ok=True)
    with step("generate the OpenAPI definitions"):
        _go_build("k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen", generator, environment)
        argv = [str(generator), "--logtostderr", "-i", ",".join(marked_packages(tree))]
        argv += ["-p", "k8s.io/kubernetes/pkg/generated/openapi", "-O", "zz_generated.openapi"]
        argv += ["-h", str(tree / "vendor/k8s.io/code-generator/hack/boilerplate.go.txt")]
        argv += ["-r", str(gopath.parent / "tools" / "violations"), "--output-base", str(gopath / "src")]
        run(argv, timeout_seconds=600, cwd=tree, env={**environment, "PATH": f"{GO.parent}:{os.environ['PATH']}"})
