"""How many manifests are checked, and what is found: Kubernetes' schemas from 1.29 to 1.37, and checkov's rules.

A part of `make bench-operator` (`operator.py`). The manifests are what kubectl makes of every kustomization, what Helm makes of the chart,
the samples, and the children that the operator builds for each of them.
"""

from collections.abc import Iterator, Sequence

from tests.bench.harness import Figure, Row
from tests.tools import checkov, manifests
from tests.tools.kubectl import kubectl


def measure() -> Iterator[Row]:
    """One row per manifest that is checked, and one per finding."""
    minors = [int(version.partition(".")[2]) for version in manifests.VERSIONS]
    given = [*manifests.rendered(kubectl()), *manifests.charted(), *manifests.samples()]
    children = {minor: manifests.built(minor) for minor in minors}
    checked = [*given, *children[max(minors)]]
    found = [
        *manifests.against_schemas(given),
        *(finding for minor in minors for finding in manifests.against_schemas(children[minor], [f"1.{minor}"])),
        *checkov.findings(checked),
    ]
    yield from ({"what": "manifest", "name": manifest.name} for manifest in checked)
    yield from ({"what": "manifest_finding", "name": one.manifest, "check": one.check, "message": one.message} for one in found)


def figures(rows: Sequence[Row]) -> list[Figure]:
    """From the rows alone."""
    checked, found = ([row for row in rows if row["what"] == what] for what in ("manifest", "manifest_finding"))
    return [
        Figure("manifests_checked", len(checked), "manifests", "higher"),
        Figure("manifest_findings", len(found), "findings", "lower", 0),
    ]
