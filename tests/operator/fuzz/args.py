"""Arguments of the engine, from the table of vLLM's flags: right and wrong names, spellings and values. `specs.py` draws them."""

from typing import Any, Final

from hypothesis import strategies as st

from alise_operator.flag_table import ALISE_FLAGS, VLLM_FLAGS, Flag
from tests.operator.fuzz.values import TEXTS, Values, several

_VALUES: Final = (
    "", "1", "0", "-1", "2", "auto", "4k", "25.6k", "1K", "1.5K", "9" * 4000, "9" * 4000 + "k", "1e309", "nan", "٣", "true", "False", "{}",
    '{"a": 1}',
    '{"a": 1k}', "[" * 2000, '{"a":' * 500, "[]", "null", "--port", "-x", "a b", "$(HOME)", "$$(HOME)", "name=path", "None", "fp8",
    "x" * 4096, "\x00", "\x1b[31m", "bfloat16", "0.9",
)  # fmt: skip
_STRAYS: Final = ("", " ", "stray", "-", "--", "---", "--=", "=", "-O", "-O3", "-O=9", "-Ox", "--.", "--x.y", "-q", "--no-", "--data",
"$(HOME)",
                  "--$(HOME)", "--port 9", " --port", "--port\t9", "--api-key\n", "-tp2", "-tp=2", "--ümlaut",
                  "--" + "a" * 4000)  # fmt: skip


@st.composite
def _flag(draw: st.DrawFn) -> list[str]:
    flag: Flag = draw(st.sampled_from((*VLLM_FLAGS, *ALISE_FLAGS)))
    name = draw(st.sampled_from(flag.names))
    spelled = draw(
        st.sampled_from((name, name, name, name.replace("-", "_"), name[:-1], name + "x", f"{name}.a", f"{name}.a.b+", name.upper()))
    )
    right = [str(choice) for choice in flag.choices] or ["1", "auto", '{"a": 1}']
    values = several(draw, st.sampled_from(right) | st.sampled_from(_VALUES), 0, 2 if flag.values == "many" else 1)
    if draw(st.booleans()) and values:
        return [f"{spelled}={values[0]}"[:4096], *values[1:]]
    return [spelled, *values]


@st.composite
def arguments(draw: st.DrawFn) -> list[Any]:
    """A list of arguments, as `spec.engine.args` admits it."""
    strays = st.sampled_from(_STRAYS) | TEXTS
    parts = several(draw, _flag() | _flag() | strays.map(lambda text: [text[:4096]]), 0, 3)
    found = [item for part in parts for item in part]
    return (found * 128)[:128] if draw(st.integers(0, 30)) == 30 else found[:128]


ARGUMENTS: Final[Values] = arguments()
