"""LoRA adapters in the resource: the rules of the fields, what the pods get, and what the status says of them."""

import json
from typing import Any

import pytest

from alise_contract import adapters as contract
from alise_contract.names import ADAPTERS_DIR, ADAPTERS_DIR_ENV
from alise_contract.v1.engine_control_pb2 import ADAPTER_STATE_FAILED, AdapterStatus
from alise_operator.children.pod import engine_args
from alise_operator.errors import InvalidSpec
from alise_operator.observation import AdapterReport, Pod
from alise_operator.pod_answer import MAX_ADAPTER_ROWS, MAX_NAME_CHARS, read_answer
from alise_operator.rules import check
from tests.operator.builders import make_pod, make_report, make_spec, report_text
from tests.operator.built import build, container, pod
from tests.operator.statuses import condition_of, seen, status_of
from tests.tools.kubernetes_schemas import validate

SUPPORT = {"name": "support", "uri": "org/support-lora", "revision": "v2"}
LEGAL = {"name": "legal", "uri": "/adapters/legal"}
SOURCES = {
    "support": contract.Adapter("support", "org/support-lora", "v2").source,
    "legal": contract.Adapter("legal", "/adapters/legal").source,
}


def model(*adapters: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"uri": "/models/tiny", "servedName": "tiny", "adapters": list(adapters), **fields}


def refusal(**changes: Any) -> str:
    with pytest.raises(InvalidSpec) as caught:
        check(make_spec(**changes), "tiny")
    return str(caught.value)


# --- the fields -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param({"model": model(SUPPORT, SUPPORT)}, "spec.model.adapters[1].name: 'support' is listed twice", id="a name twice"),
        pytest.param(
            {"model": model(SUPPORT | {"name": "tiny"})},
            "spec.model.adapters[0].name: 'tiny' is a name of the model itself",
            id="the model's name",
        ),
        pytest.param(
            {"model": model(SUPPORT | {"name": "old"}, aliases=["old"])}, "spec.model.adapters[0].name: 'old' is a name", id="an alias"
        ),
        pytest.param(
            {"model": model(SUPPORT | {"name": "a b"})}, "spec.model.adapters[0].name: 'a b' is not the name of an adapter", id="a space"
        ),
        pytest.param({"model": model(SUPPORT | {"name": "-a"})}, "spec.model.adapters[0].name", id="a dash at the beginning"),
        pytest.param(
            {"model": model({"name": "a", "uri": "s3://bucket/a"})},
            "spec.model.adapters[0].uri: 's3://bucket/a' is neither a Hugging Face repository",
            id="a scheme",
        ),
        pytest.param({"model": model({"name": "a", "uri": "a"})}, "spec.model.adapters[0].uri: 'a' is neither", id="a single word"),
        pytest.param(
            {"model": model(LEGAL | {"revision": "v2"})},
            "spec.model.adapters[0].revision: 'v2' is allowed only",
            id="a path with a revision",
        ),
        pytest.param({"model": model(lora={"maxRank": 12})}, "spec.model.lora.maxRank: 12 is not allowed", id="a rank that vLLM lacks"),
        pytest.param({"model": model(lora={"maxActive": 0})}, "spec.model.lora.maxActive", id="no place on the device"),
        pytest.param(
            {"model": model(LEGAL), "engine": {"device": "cpu", "args": ["--max-lora-rank=64"]}},
            "spec.engine.args[0]: --max-lora-rank is set here, and LoRA by spec.model; use spec.model.lora.maxRank",
            id="the flag beside the field",
        ),
        pytest.param(
            {"model": model(lora={}), "engine": {"device": "cpu", "args": ["--lora-modules", "a=/a"]}},
            "use spec.model.adapters",
            id="the flag beside LoRA without adapters",
        ),
        pytest.param(
            {"model": model(LEGAL), "engine": {"device": "cpu", "env": [{"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"}]}},
            "spec.engine.env[0]: VLLM_ALLOW_RUNTIME_LORA_UPDATING lets every client load adapters",
            id="clients that load adapters",
        ),
        pytest.param(
            {"engine": {"device": "cpu", "env": [{"name": ADAPTERS_DIR_ENV, "value": "/x"}]}}, "use spec.model.adapters", id="the variable"
        ),
    ],
)
def test_a_mistake_is_refused_by_its_field(changes: dict[str, Any], text: str) -> None:
    assert text in refusal(**changes)


def test_flags_of_lora_are_the_users_own_without_the_fields() -> None:
    check(make_spec(engine={"device": "cpu", "args": ["--enable-lora", "--lora-modules", "a=/a"]}), "tiny")


# --- the pods ---------------------------------------------------------------------------------------------------------------------


def test_without_adapters_nothing_of_lora_is_in_the_pods() -> None:
    assert not [key for key in build() if "adapters" in key]
    assert "--enable-lora" not in engine_args(make_spec())
    assert ADAPTERS_DIR_ENV not in json.dumps(pod())


def test_the_pods_mount_the_list_and_run_with_lora() -> None:
    manifests = build(model=model(SUPPORT, LEGAL, lora={"maxRank": 64, "maxActive": 2}))
    config_map = manifests["ConfigMap"]
    validate(config_map)
    assert config_map["metadata"]["name"] == "tiny-adapters"
    assert contract.load(config_map["data"][contract.FILE]) == (
        contract.Adapter("support", "org/support-lora", "v2"),
        contract.Adapter("legal", "/adapters/legal"),
    )
    engine = container("engine", model=model(SUPPORT, lora={"maxRank": 64, "maxActive": 2}))
    assert {"name": "adapter-list", "mountPath": ADAPTERS_DIR, "readOnly": True} in engine["volumeMounts"]
    assert {"name": ADAPTERS_DIR_ENV, "value": ADAPTERS_DIR} in engine["env"]
    flags = engine["args"][engine["args"].index("--enable-lora") :]
    assert flags[:7] == ["--enable-lora", "--max-lora-rank", "64", "--max-loras", "2", "--max-cpu-loras", "32"]


def test_a_changed_list_does_not_change_the_pods() -> None:
    lists = [model(SUPPORT), model(SUPPORT, LEGAL), model(SUPPORT | {"uri": "/v2", "revision": None}), model(lora={})]
    assert len({json.dumps(build(model=one)["Deployment"], sort_keys=True) for one in lists}) == 1
    assert len({json.dumps(build(model=one)["ConfigMap"], sort_keys=True) for one in lists}) == len(lists)


def test_the_first_adapter_where_lora_is_off_and_another_rank_change_the_pods() -> None:
    lists = [model(), model(SUPPORT), model(SUPPORT, lora={"maxRank": 64}), model(SUPPORT, lora={"maxActive": 8})]
    assert len({json.dumps(build(model=one)["Deployment"], sort_keys=True) for one in lists}) == len(lists)


def test_a_patch_cannot_take_the_list_away() -> None:
    patch = {"spec": {"volumes": [{"name": "adapter-list", "$patch": "replace", "emptyDir": {}}]}}
    with pytest.raises(InvalidSpec, match=r"it holds the list of adapters"):
        build(model=model(SUPPORT), podTemplate=patch)


# --- the status -------------------------------------------------------------------------------------------------------------------


def reporting(name: str, *rows: AdapterReport, **changes: Any) -> Pod:
    return make_pod(name=name, uid=f"uid-{name}", report=make_report(adapters=rows), **changes)


def row(name: str, state: str, source: str | None = None, message: str = "") -> AdapterReport:
    return AdapterReport(name, source or SOURCES[name], f"ADAPTER_STATE_{state}", message)


def of(*pods: Pod, adapters: tuple[dict[str, Any], ...] = (SUPPORT,)) -> dict[str, Any]:
    count = len(pods)
    observation = seen(*pods, desired=count, replicas=count, updated=count, ready=count)
    return status_of(observation, {}, spec=make_spec(model=model(*adapters), replicas=count))


def test_the_status_says_how_many_pods_serve_each_adapter() -> None:
    status = of(reporting("a", row("support", "LOADED")), reporting("b", row("support", "LOADING")))
    assert status["adapters"] == [{"name": "support", "loadedPods": 1, "message": "loaded in 1 of 2 pods that report"}]
    progress = condition_of(status, "Progressing")
    assert (progress["status"], progress["reason"]) == ("True", "LoadingAdapters")
    assert progress["message"].startswith("waiting for pods to load support; ")
    assert condition_of(status, "Degraded")["status"] == "False"


def test_an_adapter_that_every_pod_serves_needs_no_words() -> None:
    status = of(reporting("a", row("support", "LOADED")))
    assert condition_of(status, "Progressing")["reason"] == "Complete"
    assert condition_of(status, "Degraded")["reason"] == "AsExpected"


def test_a_pod_that_could_not_load_an_adapter_is_named_with_the_field_and_the_cause() -> None:
    status = of(reporting("a", row("support", "FAILED", message="its rank is 64")), reporting("b", row("support", "LOADED")))
    degraded = condition_of(status, "Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "AdapterNotLoaded")
    assert degraded["message"] == (
        "pod a: adapter support (spec.model.adapters[0]) cannot be loaded, so requests for it get 404 there: its rank is 64; the pod tries "
        "again every few minutes"
    )
    assert status["adapters"][0]["message"] == "loaded in 1 of 2 pods that report; pod a: its rank is 64"
    assert condition_of(status, "Ready")["status"] == "True"
    assert condition_of(status, "Progressing")["status"] == "False"


def test_the_older_version_of_an_adapter_counts_as_served_and_not_as_loaded() -> None:
    status = of(reporting("a", row("support", "LOADED", "older"), row("support", "FAILED", message="no such revision")))
    assert status["adapters"][0]["loadedPods"] == 0
    assert "so its older version is still served: no such revision" in condition_of(status, "Degraded")["message"]


def test_an_adapter_that_was_removed_is_waited_for() -> None:
    status = of(reporting("a", row("support", "LOADED"), row("legal", "LOADED")))
    assert condition_of(status, "Progressing")["message"].startswith("waiting for pods to unload legal; ")


def test_pods_that_are_not_ready_or_do_not_report_are_not_waited_for() -> None:
    status = of(
        reporting("a", row("support", "LOADED")),
        make_pod(name="b", uid="b", report=None),
        reporting("c", ready=False),
        reporting("d", terminating=True),
    )
    assert status["adapters"][0] == {"name": "support", "loadedPods": 1, "message": "loaded in 1 of 1 pods that report"}


def test_a_resource_without_adapters_says_nothing_of_them() -> None:
    assert "adapters" not in of(reporting("a"), adapters=())


def test_what_a_pod_says_of_its_adapters_is_short_and_printable() -> None:
    rows = [AdapterStatus(name="a\n\x1b[31m" * 50, source="s" * 500, state=ADAPTER_STATE_FAILED, message="why\n" * 200)] * 20
    text = report_text(adapters=rows).encode()
    report = read_answer(200, "", text)
    assert len(report.adapters) == 20
    for one in report.adapters:
        assert max(len(one.name), len(one.source)) <= MAX_NAME_CHARS
        assert len(one.message) <= contract.MAX_MESSAGE_CHARS
        assert (one.name + one.source + one.message).isprintable()


def test_a_pod_that_reports_more_adapters_than_a_resource_can_list_is_cut() -> None:
    report = read_answer(200, "", report_text(adapters=[AdapterStatus(name="a")] * 300).encode())
    assert len(report.adapters) == MAX_ADAPTER_ROWS
