"""The operator's table of flags is that of the installed vLLM, and what the operator accepts vLLM's own parser accepts."""

import argparse
import contextlib
import io
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alise_engine.serve.cli import command_line as engine_parser
from alise_operator.children.pod import engine_args
from alise_operator.flag_table import ALISE_FLAGS, BY_NAME, VLLM_FLAGS, Flag
from alise_operator.flags import HARMLESS_VALUES, OWNED_FLAGS, RESERVED_FLAGS, UNSUPPORTED_FLAGS, flag_problems
from tests.operator.builders import make_spec
from tests.tools import flags as generator

pytestmark = pytest.mark.engine

MODEL: Any = {"uri": "org/model", "servedName": "tiny", "aliases": ["old"], "revision": "v1"}


def test_the_table_is_fresh() -> None:
    assert generator.TABLE.read_text() == generator.render(), "run `make flags`"


def test_alises_own_flags_are_those_of_its_command() -> None:
    own, rest = engine_parser().parse_known_args(["serve", "m", *(word for flag in ALISE_FLAGS for word in (flag.names[0], "auto"))])
    assert (own.command, rest) == ("serve", ["m"])


@cache
def parser() -> argparse.ArgumentParser:
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    found: argparse.ArgumentParser = FlexibleArgumentParser(prog="vllm")
    ServeSubcommand().subparser_init(found.add_subparsers(dest="subparser"))
    return found


def parsed(args: list[str]) -> dict[str, Any]:
    """What `alise-engine serve` hands to vLLM, as vLLM's parser reads it; fails as the engine would."""
    _, rest = engine_parser().parse_known_args(args)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return vars(parser().parse_args(["serve", *rest]))
    except (SystemExit, ValueError, IndexError) as error:
        raise AssertionError(f"vLLM refuses {args}: {error} {errors.getvalue()}") from error


# What a type accepts; what is inside an object is judged by the engine.
GOOD: dict[str, list[str]] = {
    "text": ["x", "a b", "$x", "A-B"],
    "lowered": ["A-B"],
    "int": ["0", "7", "-1", " 3"],
    "float": ["0.5", "1e3", "7"],
    "size": ["7", "4k", "1.5k", "2M"],
    "size_or_auto": ["auto", "-1", "4K"],
    "json": ['{"a": {"b": 2}}', "[1, 2]", "null", '"text"'],
    "json_or_text": ['{"a": {"b": 2}}', "x"],
    "object": ["{}"],
    "lora": ["n=/p", '{"name": "n", "path": "/p"}'],
}
# And what may be wrong for it.
ANY = st.one_of(
    st.sampled_from([text for texts in GOOD.values() for text in texts]),
    st.sampled_from(["None", "", "true", "1.5K", "-0.5", "{", "[]", "-", "--"]),
    st.sampled_from(["--seed", "-tp", "-q", "-tp2", "--port=1", "--no-enforce-eager", "-O3", "--api.key"]),
    st.text(alphabet="-=_. 0a{}k\"'", max_size=6),
)


@st.composite
def one_flag(draw: st.DrawFn, flag: Flag) -> list[str]:
    """The items of one flag: mostly as they should be."""
    name = draw(st.sampled_from(flag.names))
    if draw(st.integers(0, 19)) == 13:
        name = name[: draw(st.integers(1, len(name)))]
    if draw(st.integers(0, 4)) == 3 and name.startswith("--"):
        name = "--" + name[2:].replace("-", "_")
    if flag.is_json and flag.type != "object" and draw(st.booleans()):
        name += draw(st.sampled_from([".a", ".a.b", ".c+", ".a-b_c", "."]))
    good = st.sampled_from([str(choice) for choice in flag.choices] or GOOD[flag.type])
    value = st.one_of(good, good, good, good, ANY)
    if flag.values == "none" and draw(st.integers(0, 9)) != 7:
        return [name]
    match draw(st.integers(0, 15)):
        case 11:
            return [f"{name} {draw(value)}"]
        case 12:
            return [f"{name}{draw(value)}"]
        case 13:
            return [name, *draw(st.lists(value, max_size=3))]
        case form if form < 6:
            return [f"{name}={draw(value)}"]
    return [name, *draw(st.lists(value, min_size=1, max_size=3 if flag.values == "many" else 1))]


FREE = [flag for flag in VLLM_FLAGS if flag.name not in OWNED_FLAGS | RESERVED_FLAGS | UNSUPPORTED_FLAGS]
FORBIDDEN = [BY_NAME[f"--{name}"] for name in OWNED_FLAGS | RESERVED_FLAGS | UNSUPPORTED_FLAGS]
SEVERAL = st.lists(st.sampled_from(FREE).flatmap(one_flag), min_size=1, max_size=4)


@settings(max_examples=400, deadline=None)
@given(several=SEVERAL)
def test_what_the_operator_accepts_vllm_accepts_and_no_value_of_ours_changes(several: list[list[str]]) -> None:
    args = [word for one in several for word in one]
    spec = make_spec(model=MODEL, engine={"device": "cpu", "tensorParallelSize": 3, "args": args})
    if list(flag_problems(spec.engine)):
        return
    found = parsed(engine_args(spec))
    assert found == found | {
        "model_tag": "org/model",
        "served_model_name": ["tiny", "old"],
        "revision": "v1",
        "host": "0.0.0.0",
        "port": 8000,
        "tensor_parallel_size": 3,
    }


@settings(max_examples=300, deadline=None)
@given(before=st.lists(st.sampled_from(FREE).flatmap(one_flag), max_size=1), forbidden=st.sampled_from(FORBIDDEN).flatmap(one_flag))
def test_a_flag_that_is_not_the_users_comes_in_by_no_spelling(before: list[list[str]], forbidden: list[str]) -> None:
    """Whatever is accepted, also with an image of the user's own, leaves vLLM's values of these flags as the operator sets them."""
    args = [word for part in before for word in part] + forbidden
    spec = make_spec(model=MODEL, engine={"device": "cpu", "image": "own:1", "args": args})
    if list(flag_problems(spec.engine)):
        return
    try:
        found = parsed(engine_args(spec))
    except AssertionError:
        # Unknown flags are left to the engine, which refuses these.
        return
    expected = parsed(engine_args(make_spec(model=MODEL, engine={"device": "cpu"})))
    for flag in FORBIDDEN:
        dest = flag.name.replace("-", "_")
        harmless = HARMLESS_VALUES.get(flag.name)
        assert found.get(dest) in (expected.get(dest), harmless if harmless is None else int(harmless)), f"{dest} by {args}"


@pytest.mark.parametrize("value", ["x", "1", "-1", "1.5", "4k", "1.5K", "{}", "{", "None", ""], ids=repr)
def test_a_value_is_judged_as_vllm_judges_it(value: str) -> None:
    """For every flag that takes one; what is inside an object is judged by the engine."""
    wrong = []
    for flag in FREE:
        if flag.values != "one" or flag.name in ("kv-cache-dtype", "shutdown-timeout") or (flag.type == "object" and value == "{}"):
            continue
        item = f"{flag.names[0]}={value}"
        accepted = not list(flag_problems(make_spec(engine={"device": "cuda", "args": [item]}).engine))
        try:
            parsed(["serve", "m", item])
        except AssertionError:
            wrong += [f"{item}: vLLM refuses it"] if accepted else []
        else:
            wrong += [] if accepted else [f"{item}: vLLM accepts it"]
    assert wrong == []
