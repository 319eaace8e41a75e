"""What Helm makes of the chart: `rendered(values)`. Needs no cluster, but `helm.py` may download the Helm library.
`tests/tools/manifests.py` calls it.
"""

from pathlib import Path
from typing import Any

import yaml

from tests.tools.chart.chart import FOLDER
from tests.tools.helm import sdk

Object = dict[str, Any]


def rendered(values: Object | None = None, *, namespace: str = "alise-system", chart: Path = FOLDER) -> list[Object]:
    """The objects of an installation with these values. Raises HelmValuesError, which names the value that the schema refuses."""
    helm = sdk()
    with helm.Chart.load(chart) as loaded:
        loaded.validate_schema(values or {})
        texts = loaded.render(values or {}, name="alise", namespace=namespace)
    templates = [text for path, text in texts.items() if path.endswith(".yaml")]
    return [document for text in templates for document in yaml.safe_load_all(text) if document]


def complaints(chart: Path = FOLDER, values: Object | None = None) -> list[str]:
    """What `helm lint --strict` says, without its recommendation of an icon."""
    report = sdk().lint(chart, values, strict=True)
    found = [f"{one['path']}: {one['error']}" for one in report["messages"] if one["error"] != "icon is recommended"]
    return [*found, *report["errors"]]
