"""The manifests as a cluster would be given them, and whether Kubernetes' own schemas allow them.

They are what `kubectl kustomize` makes of every kustomization, what Helm makes of the chart, and the children that the operator builds for
every sample. Knows no running cluster. `tests/bench/manifests.py`, `test_chart.py` and `test_manifest_schemas.py` call it.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml

from alise_contract.names import API_GROUP
from alise_operator.children import Owner, children
from alise_operator.cluster import HTTP_ROUTE, Cluster
from alise_operator.spec import parse
from tests.cluster.commands import run
from tests.tools.chart import rendering
from tests.tools.kubernetes_schemas import validate

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "manifests"
CHART: Final = FOLDER / "chart"
# What kubernetes-validate has schemas for, from the oldest that is supported.
VERSIONS: Final = tuple(f"1.{minor}" for minor in range(29, 38))
# Groups that Kubernetes publishes no schema for: ours, which the API server checks against our CRD, and those of other projects.
UNPUBLISHED: Final = frozenset({API_GROUP, "gateway.networking.k8s.io", "inference.networking.k8s.io", "keda.sh", "monitoring.coreos.com"})
KUSTOMIZE_SECONDS: Final = 30.0
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object, and where it comes from: a kustomization or a sample, by its path."""

    origin: str
    body: Object

    @property
    def name(self) -> str:
        """For people: the origin, the kind and the object's name."""
        return f"{self.origin}: {self.body['kind']} {self.body['metadata']['name']}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has against a manifest."""

    manifest: str
    check: str
    message: str


def rendered(kubectl: str) -> list[Manifest]:
    """What every kustomization below manifests/ makes, alone and with every component. Raises CommandFailed for an invalid one."""
    settings = {path.parent: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.rglob("kustomization.yaml"))}
    every_component = [folder for folder, one in settings.items() if one["kind"] == "Component"]
    found = []
    for base in (folder for folder, one in settings.items() if one["kind"] != "Component"):
        found += _kustomized(kubectl, base, _origin(base))
        # A component that a base has already would be there twice.
        own = {(base / name).resolve() for name in settings[base].get("components", [])}
        components = [folder for folder in every_component if folder not in own]
        with tempfile.TemporaryDirectory() as folder:
            # kustomize takes relative paths only.
            lists = {"resources": [base], "components": components}
            text = yaml.safe_dump(
                {key: [os.path.relpath(path, os.path.realpath(folder)) for path in paths] for key, paths in lists.items()}
            )
            (Path(folder) / "kustomization.yaml").write_text(text, encoding="utf-8")
            found += _kustomized(kubectl, Path(folder), f"{_origin(base)} with all components")
    return found


def charted() -> list[Manifest]:
    """What the chart makes with its defaults, for one namespace, and with everything that can be switched on."""
    components = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["components"]
    cases: dict[str, Object] = {
        "": {},
        " for one namespace": {"scope": "namespace"},
        " with everything": {"components": dict.fromkeys(components, True), "replicas": 2, "imagePullSecrets": [{"name": "regcred"}]},
    }
    return [Manifest(f"{_origin(CHART)}{name}", body) for name, values in cases.items() for body in rendering.rendered(values)]


def _kustomized(kubectl: str, folder: Path, origin: str) -> list[Manifest]:
    text = run([kubectl, "kustomize", str(folder)], timeout_seconds=KUSTOMIZE_SECONDS)
    return [Manifest(origin, body) for body in yaml.safe_load_all(text)]


def _origin(path: Path) -> str:
    return str(path.relative_to(ROOT))


def files() -> list[Manifest]:
    """The objects of every file that is no kustomization, no patch of one and no template of the chart, as they stand."""
    patches = {patch for path in FOLDER.rglob("kustomization.yaml") for patch in _patches(path)}
    found = []
    for path in sorted(FOLDER.rglob("*.yaml")):
        if path.name != "kustomization.yaml" and path not in patches and CHART not in path.parents:
            bodies = yaml.safe_load_all(path.read_text(encoding="utf-8"))
            found += [Manifest(_origin(path), body) for body in bodies]
    return found


def _patches(kustomization: Path) -> Iterator[Path]:
    """The files that a kustomization names as patches."""
    settings = yaml.safe_load(kustomization.read_text(encoding="utf-8"))
    named = [*settings.get("patchesStrategicMerge", []), *(patch.get("path") for patch in settings.get("patches", []))]
    return ((kustomization.parent / name).resolve() for name in named if name)


def samples() -> list[Manifest]:
    """The resources of manifests/samples."""
    return [manifest for manifest in files() if manifest.body["kind"] == "AliseEngine"]


def built(minor: int, namespace: str = "models") -> list[Manifest]:
    """The children of every sample on a cluster of this version, and those that it has only with two replicas."""
    cluster = Cluster(minor, frozenset({"policy/v1/PodDisruptionBudget", HTTP_ROUTE}))
    found = []
    for sample in samples():
        spec, owner = sample.body["spec"], Owner(sample.body["metadata"]["name"], namespace, "uid")
        bodies = children(parse(spec), owner, cluster)
        found += [Manifest(sample.origin, body) for body in bodies]
        two = children(parse(spec | {"replicas": 2, "model": _uncached(spec)}), owner, cluster)
        known = {body["kind"] for body in bodies}
        found += [Manifest(f"{sample.origin} with two replicas", body) for body in two if body["kind"] not in known]
    return found


def _uncached(spec: Object) -> Object:
    """The model without its cache, which allows one replica."""
    return {key: value for key, value in spec["model"].items() if key != "cache"}


def group(body: Object) -> str:
    """An object's API group."""
    return str(body["apiVersion"]).rpartition("/")[0]


def against_schemas(manifests: Iterable[Manifest], versions: Iterable[str] = VERSIONS) -> Iterator[Finding]:
    """What Kubernetes' schemas have against the manifests: unknown fields, wrong types, versions that are gone."""
    checked = [manifest for manifest in manifests if group(manifest.body) not in UNPUBLISHED]
    for version in versions:
        for manifest in checked:
            try:
                validate(manifest.body, version)
            except kubernetes_validate.SchemaNotFoundError as error:
                yield Finding(manifest.name, f"kubernetes {version}", str(error.message))
            except kubernetes_validate.ValidationError as error:
                path = ".".join(map(str, error.absolute_path))
                yield Finding(manifest.name, f"kubernetes {version}", f"{path}: {' '.join(error.message.split())[:300]}")
