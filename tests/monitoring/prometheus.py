"""Debian's Prometheus in a folder of its own, scraping real endpoints with the rules of manifests/monitoring.

`test_alerts.py`, `test_on_engine.py` and `test_adapter_rule.py` start it, and tests/operator/test_alerts_on_control_plane.py.
"""

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from tests.cluster import packages
from tests.monitoring.sources import groups

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
CALL_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.2
T = TypeVar("T")


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; Debian's package is installed where it is missing. Raises UnsupportedMachine."""
    if shutil.which(name) is None:
        packages.install(packages.MONITORING)
    return shutil.which(name) or name


def check_rules(folder: Path, *, bare: bool = False, at_once: bool = False) -> Path:
    """Writes the rules to a file that promtool accepts, and returns it. Raises CalledProcessError with its complaint."""
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": groups(bare=bare, at_once=at_once)}), encoding="utf-8")
    subprocess.run([program("promtool"), "check", "rules", str(rules)], check=True, capture_output=True, timeout=CALL_SECONDS)
    return rules


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns the series of an instant query. Raises AssertionError with what Prometheus says against it."""
        answer = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        assert answer["status"] == "success", answer
        found = answer["data"]["result"]
        return [{"metric": {}, "value": found}] if answer["data"]["resultType"] == "scalar" else list(found)

    def value(self, expression: str) -> float:
        """Returns the value of the only series; NaN where there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else float("nan")

    def firing(self) -> dict[str, dict[str, Any]]:
        """Returns the alerts that fire, with labels and annotations, by name."""
        found = self._get("/api/v1/alerts")["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in found if alert["state"] == "firing"}

    def rule_errors(self) -> dict[str, str]:
        """Returns what went wrong with a rule at its last evaluation, by the rule's name; rules not evaluated yet are in it as well."""
        rules = [rule for group in self._get("/api/v1/rules")["data"]["groups"] for rule in group["rules"]]
        return {rule["name"]: rule.get("lastError") or rule["health"] for rule in rules if rule["health"] != "ok"}

    def targets_down(self) -> list[str]:
        """Returns why targets cannot be scraped; one that was not scraped yet counts as down."""
        targets = self._get("/api/v1/targets?state=active")["data"]["activeTargets"]
        return [f"{target['scrapeUrl']}: {target['lastError']}" for target in targets if target["health"] != "up"]

    def eventually(self, what: str, probe: Callable[[], T | None], *, seconds: float = 60.0) -> T:
        """Returns the first true answer of the probe. Raises AssertionError that says what did not happen, and the last answer."""
        deadline, last = time.monotonic() + seconds, None
        while time.monotonic() < deadline:
            last = probe()
            if last:
                return last
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"within {seconds:.0f} s: {what}; last seen: {last!r}; firing: {sorted(self.firing())}")

    def _get(self, path: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=CALL_SECONDS) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            found = json.load(error)
        return found


@contextlib.contextmanager
def running(folder: Path, targets: Mapping[str, Mapping[str, str]], *, honor_labels: bool = False) -> Iterator[Prometheus]:
    """Runs Prometheus with the rules, whose alerts fire at once. It scrapes each address of `targets` every second, with these labels."""
    check_rules(folder, at_once=True)
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {
                "job_name": "alise",
                "honor_labels": honor_labels,
                "static_configs": [{"targets": [address], "labels": dict(labels)} for address, labels in targets.items()],
            }
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    log = folder / "prometheus.log"
    argv = [program("prometheus"), f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
    argv += ["--web.listen-address=127.0.0.1:0", "--log.level=info"]
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    try:
        yield Prometheus(_wait_ready(process, log))
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Returns the URL. The log names the port, because Prometheus takes a free one."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        text = log.read_text(encoding="utf-8", errors="replace")
        assert process.poll() is None, f"Prometheus ended with status {process.returncode}:\n{text[-2000:]}"
        found = re.search(r'msg="Listening on" address=127\.0\.0\.1:(\d+)', text)
        if found is not None and "Server is ready" in text:
            return f"http://127.0.0.1:{found[1]}"
        time.sleep(POLL_SECONDS)
    raise AssertionError(
        f"Prometheus was not ready after {READY_SECONDS:.0f} s:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}"
    )
