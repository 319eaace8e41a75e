"""Fields of the resource become flags and variables that the engine and the scheduler understand: classes, limits, API keys, history."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alise_engine.api.endpoint import settings as engine_settings
from alise_engine.serve.cli import command_line as engine_parser
from alise_operator.children.pod import admission_env, engine_args, scheduler_env
from alise_scheduler import config as scheduler_config
from alise_scheduler.__main__ import parser as scheduler_parser
from tests.operator.builders import make_spec
from tests.operator.built import SPECS, container, environment, pod
from tests.operator.test_crd import schema

KEYS = {"secretRef": {"name": "keys"}}


def test_fields_become_flags_of_the_engine() -> None:
    args = engine_args(
        make_spec(
            model={"uri": "org/model", "revision": "v2", "servedName": "m"},
            engine={
                "device": "cuda",
                "tensorParallelSize": 2,
                "maxModelLen": 4096,
                "maxNumSeqs": 8,
                "kvCacheDtype": "fp8",
                "args": ["--seed", "7"],
            },
            kvOffload={"hostMemory": "1.5Gi", "quantization": "none"},
        )
    )
    assert args[:2] == ["serve", "org/model"]
    assert args[-2:] == ["--seed", "7"]
    pairs = dict(zip(args[2::2], args[3::2], strict=True))
    assert (
        pairs
        | {
            "--served-model-name": "m",
            "--revision": "v2",
            "--tensor-parallel-size": "2",
            "--max-model-len": "4096",
            "--max-num-seqs": "8",
            "--kv-cache-dtype": "fp8",
            "--alise-host-memory": "1536Mi",
            "--alise-kv-codec": "none",
        }
        == pairs
    )


@pytest.mark.parametrize(
    ("engine", "most"),
    [
        pytest.param({"device": "cuda", "tensorParallelSize": 4}, "32Gi", id="8 GiB for each GPU"),
        pytest.param({"device": "cpu"}, "1Gi", id="a CPU's KV cache"),
    ],
)
def test_host_memory_that_is_left_out_follows_from_the_device_within_a_bound(engine: dict[str, object], most: str) -> None:
    args = engine_args(make_spec(engine=engine))
    at = args.index("--alise-host-memory")
    assert args[at : at + 4] == ["--alise-host-memory", "auto", "--alise-host-memory-at-most", most]


@pytest.mark.parametrize(
    ("model", "names"),
    [
        pytest.param({"servedName": "tiny", "aliases": ["gpt-4", "old"]}, ["tiny", "gpt-4", "old"], id="a name and aliases"),
        pytest.param({"aliases": ["old"]}, ["org/model", "old"], id="aliases beside the uri"),
        pytest.param({"servedName": "$(PORT)"}, ["$$(PORT)"], id="a name that would be a variable"),
    ],
)
def test_every_name_of_the_model_reaches_the_engine_the_one_in_answers_first(model: dict[str, Any], names: list[str]) -> None:
    args = engine_args(make_spec(model={"uri": "org/model"} | model))
    first = args.index("--served-model-name") + 1
    assert args[first : first + len(names)] == names
    assert args[first + len(names)].startswith("--")


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in SPECS.items()])
def test_the_engine_knows_the_flags_that_it_is_given(changes: dict[str, Any]) -> None:
    parser: argparse.ArgumentParser = engine_parser()
    own, rest = parser.parse_known_args(container("engine", **changes)["args"])
    assert own.command == "serve"
    assert not [flag for flag in rest if flag.startswith("--alise")]
    drain, rest = parser.parse_known_args(container("engine", **changes)["lifecycle"]["preStop"]["exec"]["command"][1:])
    assert (drain.command, rest) == ("drain", [])


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in SPECS.items()])
def test_the_scheduler_understands_its_settings(changes: dict[str, Any]) -> None:
    spec = make_spec(**changes)
    settings = scheduler_config.load(scheduler_env(spec), {})
    assert (settings.policy, settings.ageing, settings.max_wait_seconds) == (
        spec.scheduling.policy,
        spec.scheduling.ageing,
        spec.admission.max_wait_seconds,
    )
    assert [one.name for one in settings.classes] == [one.name for one in spec.scheduling.classes]
    waiting = scheduler_parser().parse_args(container("scheduler", **changes)["lifecycle"]["preStop"]["exec"]["command"][1:])
    assert waiting.command == "wait-for-engine-exit"


@pytest.mark.parametrize("changes", [pytest.param(changes, id=name) for name, changes in SPECS.items()])
def test_the_engine_understands_its_settings(changes: dict[str, Any], tmp_path: Path) -> None:
    spec = make_spec(**changes)
    settings = engine_settings(admission_env(spec) | {"ALISE_SOCKET_DIR": str(tmp_path)})
    auth, admission = spec.auth, spec.admission
    assert (settings.max_pending, settings.limits.seconds) == (admission.max_pending, admission.body_seconds)
    assert (settings.rules.trust_headers, settings.isolates_prefix_cache) == (admission.trust_headers, admission.isolate_prefix_cache)
    assert settings.rules.classes == {one.name for one in spec.scheduling.classes}
    assert settings.rules.tenant_classes == ({one.name: one.class_ for one in auth.tenants} if auth else {})
    assert (settings.auth_dir, settings.guards_metrics) == ((Path("/etc/alise/auth"), auth.guard_metrics) if auth else (None, False))


def test_defaults_of_the_resource_are_those_of_an_engine_and_a_scheduler_without_kubernetes(tmp_path: Path) -> None:
    spec, sockets = make_spec(), {"ALISE_SOCKET_DIR": str(tmp_path)}
    where = "a default of operator/alise_operator/spec.py differs from that of the process: names.py and variables.py, or config.py"
    assert engine_settings(admission_env(spec) | sockets) == engine_settings(sockets), where
    given, own = (scheduler_config.load(environ, {}) for environ in (scheduler_env(spec), {}))
    of_the_pod = {"history_dir", "encoder", "history_key", "history_dsn"}
    assert given.model_dump(exclude=of_the_pod) == own.model_dump(exclude=of_the_pod), where


def bounds() -> Iterator[tuple[str, str, int]]:
    """Each bound of a number in spec.scheduling and spec.admission."""
    for section in ("scheduling", "admission"):
        for name, node in schema()["properties"]["spec"]["properties"][section]["properties"].items():
            yield from ((section, name, node[bound]) for bound in ("minimum", "maximum") if node.get("type") == "integer" and bound in node)


@pytest.mark.parametrize(("section", "name", "value"), list(bounds()))
def test_what_the_resource_allows_the_processes_allow_too(section: str, name: str, value: int, tmp_path: Path) -> None:
    spec = make_spec(**{section: {name: value}})
    scheduler_config.load(scheduler_env(spec), {})
    engine_settings(admission_env(spec) | {"ALISE_SOCKET_DIR": str(tmp_path)})


def test_a_class_of_requests_reaches_the_scheduler_with_its_weight() -> None:
    (batch,) = scheduler_config.load(scheduler_env(make_spec(**SPECS["classes and limits"])), {}).classes
    assert (batch.name, batch.weight, batch.slo_ttft_ms) == ("batch", 0.25, 500)


def test_the_api_server_gets_the_classes_that_the_scheduler_has() -> None:
    spec = make_spec(**SPECS["classes and limits"])
    classes = '[{"name":"batch","weight":0.25,"sloTtftMs":500}]'
    assert admission_env(spec)["ALISE_CLASSES"] == scheduler_env(spec)["ALISE_CLASSES"] == classes


def test_only_the_api_server_limits_how_many_requests_wait() -> None:
    spec = make_spec(**SPECS["classes and limits"])
    assert admission_env(spec)["ALISE_MAX_PENDING"] == "5"
    assert "ALISE_MAX_PENDING" not in scheduler_env(spec)


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        pytest.param({}, "ALISE_MAX_BODY_BYTES", str(32 << 20), id="a body of 32 MiB"),
        pytest.param({"maxBodySize": "1.5Mi"}, "ALISE_MAX_BODY_BYTES", str(3 << 19), id="a quantity in bytes"),
        pytest.param({}, "ALISE_BODY_SECONDS", "60", id="a minute to send it"),
        pytest.param({"bodySeconds": 5}, "ALISE_BODY_SECONDS", "5", id="five seconds to send it"),
        pytest.param({}, "ALISE_TRUST_HEADERS", "false", id="headers of clients are not believed"),
        pytest.param({"trustHeaders": True}, "ALISE_TRUST_HEADERS", "true", id="headers of a gateway are believed"),
        pytest.param({}, "ALISE_ISOLATE_PREFIX_CACHE", "false", id="one prefix cache for all"),
        pytest.param({"isolatePrefixCache": True}, "ALISE_ISOLATE_PREFIX_CACHE", "true", id="a prefix cache per tenant"),
    ],
)
def test_limits_of_requests_reach_the_engine(changes: dict[str, Any], name: str, value: str) -> None:
    assert environment("engine", admission=changes)[name] == value


def test_only_the_engine_reads_api_keys_from_the_secret() -> None:
    volumes = {one["name"]: one for one in pod(auth=KEYS)["volumes"]}
    assert volumes["api-keys"]["secret"] == {"secretName": "keys", "defaultMode": 0o440}
    (mount,) = [one for one in container("engine", auth=KEYS)["volumeMounts"] if one["name"] == "api-keys"]
    # A subPath would never be updated.
    assert mount == {"name": "api-keys", "mountPath": "/etc/alise/auth", "readOnly": True}
    assert environment("engine", auth=KEYS)["ALISE_AUTH_DIR"] == mount["mountPath"]
    assert "api-keys" not in [one["name"] for one in container("scheduler", auth=KEYS)["volumeMounts"]]


def test_tenants_get_their_classes_and_metrics_are_guarded_on_demand() -> None:
    guarded = environment("engine", **SPECS["API keys of tenants with classes"])
    open_to_all = environment("engine", auth=KEYS)
    assert (guarded["ALISE_AUTH_CLASSES"], guarded["ALISE_AUTH_METRICS"]) == ('{"team-a":"gold"}', "true")
    assert (open_to_all["ALISE_AUTH_CLASSES"], open_to_all["ALISE_AUTH_METRICS"]) == ("{}", "false")


def test_without_auth_no_keys_are_mounted_or_asked_for() -> None:
    assert "api-keys" not in [one["name"] for one in pod()["volumes"]]
    assert not [name for name in environment("engine") if name.startswith("ALISE_AUTH")]


def test_the_history_lies_in_a_volume_of_the_pod() -> None:
    mounts = {one["name"]: one["mountPath"] for one in container("scheduler")["volumeMounts"]}
    assert environment("scheduler")["ALISE_HISTORY_DIR"] == mounts["history"]


def test_a_shared_history_is_reached_by_a_secret_and_never_as_text() -> None:
    predictor = {"history": {"postgres": {"dsnSecretRef": {"name": "lengths", "key": "dsn"}}}, "encoder": "/encoders/mine"}
    env = environment("scheduler", predictor=predictor)
    assert env["ALISE_HISTORY_DSN"] == {"secretKeyRef": {"name": "lengths", "key": "dsn"}}
    assert env["ALISE_ENCODER"] == "/encoders/mine"
    assert {"ALISE_HISTORY_DSN", "ALISE_ENCODER"}.isdisjoint(environment("scheduler"))


def test_the_key_of_a_shared_history_comes_from_a_secret() -> None:
    postgres = {"dsnSecretRef": {"name": "lengths"}, "keySecretRef": {"name": "salt"}}
    env = environment("scheduler", predictor={"history": {"postgres": postgres}})
    assert env["ALISE_HISTORY_KEY"] == {"secretKeyRef": {"name": "salt", "key": "key"}}
    del postgres["keySecretRef"]
    assert "ALISE_HISTORY_KEY" not in environment("scheduler", predictor={"history": {"postgres": postgres}})


@pytest.mark.parametrize(("history", "value"), [({}, "true"), ({"embeddings": False}, "false")], ids=["by default", "left out"])
def test_embeddings_of_prompts_are_kept_unless_left_out(history: dict[str, Any], value: str) -> None:
    assert environment("scheduler", predictor={"history": history})["ALISE_HISTORY_EMBEDDINGS"] == value


def test_the_key_of_a_connection_string_is_dsn_unless_named() -> None:
    env = environment("scheduler", predictor={"history": {"postgres": {"dsnSecretRef": {"name": "lengths"}}}})
    assert env["ALISE_HISTORY_DSN"] == {"secretKeyRef": {"name": "lengths", "key": "dsn"}}
