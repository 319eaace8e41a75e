"""Flags in `spec.engine.args`: judged at apply time as vLLM's parser would read them, and refused as the engine refuses them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alise_engine.serve.compose import _UNSUPPORTED
from alise_engine.serve.compose import CPU_KV_CACHE_DTYPES as ENGINE_CPU_KV_CACHE_DTYPES
from alise_operator.adapter_rules import LORA_FLAGS
from alise_operator.children.pod import EXIT_MARGIN_SECONDS, engine_args
from alise_operator.errors import InvalidSpec
from alise_operator.flag_table import BY_NAME
from alise_operator.flags import (
    CPU_KV_CACHE_DTYPES,
    CUDA_KV_CACHE_DTYPES,
    FIELD_FLAGS,
    HARMLESS_VALUES,
    MAX_SHUTDOWN_TIMEOUT_SECONDS,
    OWNED_FLAGS,
    RESERVED_FLAGS,
    UNSUPPORTED_FLAGS,
    flag_problems,
    given_flags,
)
from alise_operator.rules import check
from alise_operator.spec_engine import Engine
from tests.operator.builders import make_spec
from tests.operator.built import SPECS


def problems(*args: str, **engine: Any) -> list[str]:
    """What the operator says of these arguments."""
    spec = make_spec(engine={"device": "cpu", "args": list(args)} | engine)
    return [str(problem) for problem in flag_problems(spec.engine)]


NO_MODEL = ("--speculative-conf", '{"method":"ngram","num_speculative_tokens":2}')
REPORTED = [
    pytest.param(
        ["--enforce-eager", "--kv-offloading-size", "1"],
        "args[1]: --kv-offloading-size is set by the operator; use spec.kvOffload.hostMemory",
        id="vLLM's own offload (A14)",
    ),
    pytest.param(
        ["--kv-offloading-backend", "lmcache"],
        "args[0]: --kv-offloading-backend is set by the operator; use spec.kvOffload.hostMemory",
        id="another backend of it (A14)",
    ),
    pytest.param(["--kv-offloading-size=1"], "args[0]: --kv-offloading-size is set by the operator", id="the same with = (A14)"),
    pytest.param(
        ["--max-num-batched-tokens 4096"],
        "args[0]: '--max-num-batched-tokens 4096' is one word to vLLM; write '--max-num-batched-tokens' and '4096' as two items, or "
        "'--max-num-batched-tokens=4096' as one",
        id="two words in one item (A15)",
    ),
    pytest.param(["--port 9000"], "args[0]: --port cannot be set, because the pod listens on 8000", id="two words, a flag of ours (A15)"),
    pytest.param(
        ["--served-model-name a b"],
        "args[0]: --served-model-name is set by the operator; use spec.model.servedName, and spec.model.aliases for further names",
        id="three words, a flag of ours (A15)",
    ),
    pytest.param(
        ["--served-model-name", "tiny", "gpt-3.5-turbo"], "spec.model.aliases for further names", id="several names by the flag (A17)"
    ),
    pytest.param(
        ["--tensor-parallel 2"],
        "args[0]: '--tensor-parallel' (short for --tensor-parallel-size) is set by the operator; use spec.engine.tensorParallelSize",
        id="two words, an abbreviation of a flag of ours (A15)",
    ),
    pytest.param(
        ["--scheduling-pol=fcfs"],
        "args[0]: '--scheduling-pol' (short for --scheduling-policy) cannot be set, because alise orders requests by priority",
        id="an abbreviation of a flag of ours (A15)",
    ),
    pytest.param(
        NO_MODEL, "args[0]: '--speculative-conf' (short for --speculative-config) {", id="an abbreviation of what is not supported (A15)"
    ),
    pytest.param(
        ["--served-model", "x"],
        "args[0]: '--served-model' (short for --served-model-name) is set by the operator",
        id="another abbreviation (A15)",
    ),
    pytest.param(
        ["--revis", "x"],
        "args[0]: '--revis' (short for --revision) is set by the operator; use spec.model.revision; remove args[0] and its value "
        "args[1] ('x')",
        id="one more, with the item that goes with it (A15)",
    ),
    pytest.param(
        ["--kv-offloading-size", "4"],
        "args[0]: --kv-offloading-size is set by the operator; use spec.kvOffload.hostMemory (the flag is in GiB and the field needs the "
        "unit, for example '4Gi'; the field is not set now); remove args[0] and its value args[1] ('4')",
        id="a size in GiB, with its unit (A14)",
    ),
    pytest.param(
        ["--hf-token", "hf_x"],
        "args[0]: --hf-token is set by the operator; use spec.model.tokenSecretRef; remove args[0] and its value args[1]",
        id="a token, which is not repeated (A15)",
    ),
    pytest.param(
        ["--no-enable-prefix-caching "],
        "args[0]: '--no-enable-prefix-caching ' begins or ends with a space; write '--no-enable-prefix-caching'",
        id="a trailing space (A15)",
    ),
]
MISTAKES = [
    pytest.param([" --seed", "7"], "args[0]: ' --seed' begins or ends with a space; write '--seed'", id="a leading space"),
    pytest.param(["--max-num-batched", "4k"], "is an abbreviation; write --max-num-batched-tokens", id="an abbreviation"),
    pytest.param(["--ssl", "x"], "args[0]: --ssl may be --ssl-", id="an abbreviation of several"),
    pytest.param(
        ["--max-num-batch-tokens", "4k"],
        "args[0]: vLLM 0.32.0 has no flag --max-num-batch-tokens; did you mean --max-num-batched-tokens?",
        id="an unknown flag",
    ),
    pytest.param(["--zzz"], "args[0]: vLLM 0.32.0 has no flag --zzz; remove it", id="a flag like no other"),
    pytest.param(["--seed", "seven"], "args[0]: --seed 'seven': must be a whole number", id="text for a number"),
    pytest.param(["--seed=1.5"], "args[0]: --seed '1.5': must be a whole number", id="half a number"),
    pytest.param(["--gpu-memory-utilization", "most"], "--gpu-memory-utilization 'most': must be a number", id="text for a fraction"),
    pytest.param(["--max-num-batched-tokens", "4 thousand"], "must be a whole number; 4k (4,000)", id="a size in words"),
    pytest.param(["--max-num-batched-tokens", "1.5K"], "must be a whole number; 4k (4,000)", id="decimals of a binary unit"),
    pytest.param(["--max-model-len", "long"], "4k (4,000), 25.6k and 4K (4,096) are allowed as well, or auto", id="a length in words"),
    pytest.param(["--runner", "batch"], "args[0]: --runner 'batch': must be one of ", id="not one of the choices"),
    pytest.param(["--override-generation-config", "{"], "--override-generation-config '{': must be JSON: ", id="broken JSON"),
    pytest.param(["--compilation-config", "[]"], "must be a JSON object such as", id="a list for an object"),
    pytest.param(["--compilation-config", '{"mod": 0}'], "there is no key 'mod'; did you mean 'mode'?", id="an unknown key"),
    pytest.param(["--compilation-config.mod=0"], "--compilation-config.mod: there is no key 'mod'", id="an unknown key, dotted"),
    pytest.param(["--lora-modules", "adapter"], "must be name=path or JSON", id="an adapter without a path"),
    pytest.param(["--override-generation-config", "[" * 4000], "nested less deeply", id="JSON that is all brackets"),
    pytest.param(
        ["--enforce-eager=false"],
        "args[0]: --enforce-eager takes no value ('false'); write --no-enforce-eager",
        id="a value for a switch",
    ),
    pytest.param(["--enforce-eager", "true"], "--enforce-eager takes no value ('true'); write --enforce-eager", id="a word after a switch"),
    pytest.param(["--no-enforce-eager=false"], "('false'); write --enforce-eager", id="a value for a switch that is turned off"),
    pytest.param(["--seed"], "args[0]: --seed needs a value; write --seed=VALUE, or the value as the next item", id="no value"),
    pytest.param(["--seed", "--enforce-eager"], "args[0]: --seed needs a value", id="a flag in the place of a value"),
    pytest.param(
        ["--seed", "-0.5"],
        "args[0]: --seed needs a value; one that begins with a dash is written '--seed=-0.5'",
        id="a value that begins with a dash",
    ),
    pytest.param(["--lora-modules"], "args[0]: --lora-modules needs a value", id="no value of several"),
    pytest.param(["4096"], "args[0]: '4096' belongs to no flag; the name of a flag begins with --", id="a value alone"),
    pytest.param(["--seed", "7", "8"], "args[2]: '8' belongs to no flag, and --seed takes one value; remove it", id="a value too many"),
    pytest.param(["--enforce-eager", "x"], "args[1]: 'x' belongs to no flag, and --enforce-eager takes no value", id="a value of a switch"),
    pytest.param(["max-num-batched-tokens=4k"], "belongs to no flag; did you mean --max-num-batched-tokens?", id="no dashes"),
    pytest.param([""], "args[0]: is empty; remove it", id="an empty item"),
    pytest.param(["--"], "args[0]: '--' belongs to no flag", id="two dashes"),
    pytest.param(["=x"], "args[0]: '=x' belongs to no flag", id="an equals sign first"),
    pytest.param(
        ["--seed=1", "--enforce-eager", "--seed", "2"],
        "args[2]: --seed is given twice, here and at spec.engine.args[0]; keep one of them",
        id="a flag twice",
    ),
    pytest.param(["--enforce-eager", "--no-enforce-eager"], "args[1]: --no-enforce-eager is given twice", id="a switch and its opposite"),
    pytest.param(
        ["--override-generation-config.a", "1", "--override-generation-config.a.b=2"], "is given twice", id="a key and one inside it"
    ),
    pytest.param(["--override-generation-config={}", "--override-generation-config.a=1"], "is given twice", id="an object and its key"),
    pytest.param(["--seed.x", "1"], "args[0]: --seed.x: --seed has no keys; write --seed=VALUE", id="a key of a number"),
    pytest.param(["-q4"], "args[0]: '-q4': write '-q=4'", id="a value joined to a letter"),
    pytest.param(["-O", "fast"], "args[0]: -O fast: must be one of 0, 1, 2, 3", id="an optimization level in words"),
    pytest.param(
        ["--seed", "$(SEED)"],
        "args[0]: '$(SEED)' could become a flag of its own; write both as one item, '--seed=$(SEED)'",
        id="a variable in an item of its own",
    ),
    pytest.param(["$(FLAGS)"], "args[0]: '$(FLAGS)': flags cannot come from a variable", id="a variable for flags"),
    pytest.param(["--$(FLAG)=1"], "args[0]: '--$(FLAG)=1'", id="a variable for a name"),
    pytest.param(["--se$(ED)=1"], "the name of a flag cannot come from a variable", id="a variable inside a name"),
    pytest.param(["--help"], "--help cannot be set, because the engine would print its help text and exit; remove it", id="help"),
    pytest.param(["-n", "2"], "--nnodes 2: an engine is one pod; use spec.engine.tensorParallelSize", id="several machines"),
]


@pytest.mark.parametrize(("args", "said"), REPORTED + MISTAKES)
def test_a_flag_that_would_stop_the_engine_is_refused_with_its_place_and_the_way_out(args: list[str], said: str) -> None:
    found = problems(*args)
    assert len(found) == 1, found
    assert said in found[0]
    assert found[0].startswith("spec.engine.args[")


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(["--max-num-batched-tokens", "4k", "--seed=7", "--no-enable-prefix-caching"], id="values and a switch"),
        pytest.param(["--max_num_batched_tokens=1M"], id="underscores"),
        pytest.param(["--max-model-len", "auto"], id="a length that vLLM chooses"),
        pytest.param(["--max-model-len", "-1"], id="a negative number"),
        pytest.param(["-q", "awq"], id="a short name"),
        pytest.param(["-q=awq"], id="a short name, joined"),
        pytest.param(["-O3"], id="an optimization level"),
        pytest.param(["-O", "0"], id="an optimization level apart"),
        pytest.param(["--compilation-config", '{"mode": 0, "max_cudagraph_capture_size": 1k}'], id="an object, with units"),
        pytest.param(["--compilation-config.mode", "0", "--compilation-config.backend=eager"], id="keys of an object"),
        pytest.param(["--compilation-config.custom_ops+=a", "--compilation-config.custom_ops+", "b"], id="items of a list one by one"),
        pytest.param(["--hf-overrides", '{"sliding_window": 128}'], id="JSON in a place for text as well"),
        pytest.param(["--lora-modules", "a=/adapters/a", '{"name": "b", "path": "/adapters/b"}'], id="several values"),
        pytest.param(["--middleware", "a.B", "--middleware", "c.D"], id="a flag that may be given twice"),
        pytest.param(["--chat-template", "{{ '<s> ' }} and more"], id="text with blanks"),
        pytest.param(["--seed=$(SEED)"], id="a value from a variable"),
        pytest.param(["--data-parallel-size", "1", "--nnodes=1", "--no-data-parallel-hybrid-lb"], id="what is off anyway"),
        pytest.param(["--gpu-memory-utilization=.5"], id="a fraction"),
    ],
)
def test_what_vllm_reads_is_accepted(args: list[str]) -> None:
    assert problems(*args) == []


@pytest.mark.parametrize(
    ("args", "refused"),
    [
        pytest.param(["--new-flag", "a", "b", "--other"], False, id="a flag that vLLM does not have"),
        pytest.param(["--runner", "theirs"], False, id="a choice that vLLM does not have"),
        pytest.param(["--new-flag", "a b", "--seed", "x"], True, id="a wrong value of a known flag behind it"),
        pytest.param(["--new flag"], True, id="two words"),
        pytest.param(["--tensor-par=2"], True, id="an abbreviation"),
        pytest.param(["--port=1"], True, id="a flag of ours"),
    ],
)
def test_an_image_of_the_users_own_may_have_more_flags_and_values(args: list[str], refused: bool) -> None:
    assert bool(problems(*args, image="registry.example.com/own:1")) == refused
    assert problems(*args)


SPELLINGS = [
    pytest.param(["--tensor-parallel-size", "2"], id="the name"),
    pytest.param(["--tensor_parallel_size=2"], id="underscores"),
    pytest.param(["-tp", "2"], id="the short name"),
    pytest.param(["-tp=2"], id="the short name, joined"),
    pytest.param(["--tensor-parallel-size.x", "2"], id="a key"),
    pytest.param(["--tensor-p=2"], id="an abbreviation"),
    pytest.param(["--tensor-parallel-size 2"], id="two words"),
    pytest.param([" --tensor-parallel-size", "2"], id="a blank before it"),
]


@pytest.mark.parametrize("args", SPELLINGS)
def test_a_flag_is_the_same_in_every_spelling(args: list[str]) -> None:
    found = [(index, name) for index, name, _ in given_flags(["--enforce-eager", *args])]
    assert found == [(0, "enforce-eager"), (1, "tensor-parallel-size")]


def test_every_flag_of_the_lists_is_one_of_vllms_or_alises() -> None:
    listed = {*OWNED_FLAGS, *RESERVED_FLAGS, *UNSUPPORTED_FLAGS, *HARMLESS_VALUES, *FIELD_FLAGS, "kv-cache-dtype", "shutdown-timeout"}
    assert {name for name in listed if BY_NAME.get(f"--{name}") is None or BY_NAME[f"--{name}"].name != name} == set()
    assert OWNED_FLAGS.keys().isdisjoint(RESERVED_FLAGS.keys() | UNSUPPORTED_FLAGS.keys())


WORDS = st.sampled_from(sorted(BY_NAME)) | st.text(max_size=8) | st.text(alphabet='-=. _O$(){}[]"\\\n1ak', max_size=12)


@settings(max_examples=100, deadline=None)
@given(args=st.lists(st.lists(WORDS, min_size=1, max_size=3).map("".join), max_size=5))
def test_whatever_is_written_is_judged_and_every_problem_names_its_item(args: list[str]) -> None:
    for problem in problems(*args):
        index = int(problem.removeprefix("spec.engine.args[").partition("]")[0])
        assert 0 <= index < len(args)
    assert all(0 <= index < len(args) for index, _, _ in given_flags(args))


def test_the_longest_list_of_nonsense_is_refused_in_a_bounded_message() -> None:
    assert len("; ".join(problems(*["--" + "x" * 4094] * 128))) < 128 * 300


@pytest.mark.parametrize(("dest", "unsupported"), [pytest.param(dest, test, id=dest) for dest, test, _ in _UNSUPPORTED])
def test_what_the_engine_does_not_support_is_refused_before_a_pod_is_created(dest: str, unsupported: Any) -> None:
    value = next(value for value in (2, "fcfs", True) if unsupported(value))
    flag = f"--{dest.replace('_', '-')}"
    spec = make_spec(engine={"device": "cpu", "args": [flag] if value is True else [flag, str(value)]})
    with pytest.raises(InvalidSpec, match=rf"spec.engine.args\[0\]: {flag}"):
        check(spec, "tiny")


def test_the_engine_and_the_operator_agree_on_a_cpus_kv_cache_dtypes() -> None:
    assert CPU_KV_CACHE_DTYPES == ENGINE_CPU_KV_CACHE_DTYPES


def test_vllm_ends_within_the_margin_of_the_grace_period() -> None:
    assert MAX_SHUTDOWN_TIMEOUT_SECONDS < EXIT_MARGIN_SECONDS


@pytest.mark.engine
def test_the_kv_cache_dtypes_of_cuda_are_those_of_vllm() -> None:
    from typing import get_args

    from vllm.config.cache import CacheDType

    assert get_args(CacheDType) == CUDA_KV_CACHE_DTYPES


def test_the_refusal_of_an_offloading_size_says_what_the_field_is_now() -> None:
    spec = make_spec(engine={"device": "cpu", "args": ["--kv-offloading-size=2"]}, kvOffload={"hostMemory": "512Mi"})
    (problem,) = flag_problems(spec.engine, spec.kv_offload)
    assert problem.text.endswith("for example '2Gi'; the field is '512Mi' now)")


def test_a_token_in_the_arguments_is_not_repeated_in_the_refusal() -> None:
    (problem,) = flag_problems(make_spec(engine={"device": "cpu", "args": ["--hf-token", "hf_x"]}).engine)
    assert "hf_x" not in problem.text


@pytest.mark.parametrize("name", SPECS)
def test_a_flag_that_a_field_becomes_is_known_so_that_it_is_not_given_twice(name: str) -> None:
    spec = make_spec(**SPECS[name])
    own = engine_args(spec)[: -len(spec.engine.args) or None]
    flags = {arg.removeprefix("--") for arg in own if arg.startswith("--")}
    assert flags - {*OWNED_FLAGS, *RESERVED_FLAGS, *FIELD_FLAGS, *LORA_FLAGS} == set()


@pytest.mark.parametrize("field", sorted(FIELD_FLAGS.values()))
def test_a_field_that_is_not_given_leaves_its_flag_to_the_arguments(field: str) -> None:
    assert Engine.model_fields[field].default in (None, "auto"), "the default of a field in FIELD_FLAGS stands for one that is not given"
