"""Values that specs are made of: any JSON, and for each kind of field those near its edges, usual ones and hostile ones.

`specs.py`, `pods.py`, `args.py` and `answers.py` draw them.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hypothesis import strategies as st

Values = st.SearchStrategy[Any]

# The API server's JSON has no lone surrogates, no NaN and no infinity, and numbers of 64 bits.
_CHARACTERS: Final = st.characters(exclude_categories=["Cs"])
_ODD_TEXTS: Final = (
    "", " ", "a b", "-a", "--port", "a\nb", "a\x0bb", "a\x1cb", "a\x85b", "a\xa0b", "a\u2003b", "\x1b[31mred\x1b[0m", "\u202eabc",
    "\x00",
    "größe", "急ぎ", "$(HOME)", "$$(HOME)", "${HOME}", "%s", "{0}", "a/b", "../..", "a.", ".a", "A", "None", "null", "true", "0", "-1",
    "1e3",
    "'", '"', "\\", "a" * 63, "a" * 64, "a" * 253, "a" * 254, "9" * 5000, "x" * 20_000, "\U0001f600",
)  # fmt: skip
TEXTS: Final = st.sampled_from(_ODD_TEXTS) | st.text(_CHARACTERS, max_size=12)
INTEGERS: Final = st.sampled_from((-(2**63), -1, 0, 1, 2, 63, 8000, 65535, 65536, 2**31 - 1, 2**31, 2**63 - 1)) | st.integers(-10, 100)
_SCALARS: Final = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXTS


def _deep(levels: int, is_list: bool) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if is_list else {"a": value}
    return value


def _holding(inner: Values) -> Values:
    return st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)


JSON: Final = st.one_of(
    _SCALARS,
    _holding(_SCALARS),
    _holding(_SCALARS | _holding(_SCALARS)),
    st.builds(_deep, st.sampled_from((3, 49, 51, 300)), st.booleans()),
    st.builds(lambda value, count: [value] * count, _SCALARS, st.sampled_from((33, 129, 3000))),
)

QUANTITIES: Final = st.sampled_from(
    (
        "0", "1", "2", "+1", "5.", ".5", "0.0", "1n", "1m", "62.5m", "62.4m", "250m", "500m", "16", "16.001", "1e3", "1E3", "12e-3",
        "1e999",
        "1e-999", "1023", "1Ki", "1.5Gi", "1Gi", "1025Mi", "3344Mi", "4Gi", "64Gi", "256Gi", "1Ei", "9" * 25 + "Ei", "9" * 5000,
        "0." + "0" * 40 + "1Gi", 0, 1, 2, 16, 64, 2**31, 2**63 - 1,
    )
)  # fmt: skip
NAMES: Final = st.sampled_from(("a", "tiny", "hub", "keys", "a.b", "a-b", "0", "a" * 253, "a..b", "a.-b", "a-.b"))
HOSTS: Final = st.sampled_from(
    (
        "a", "llm.example.com", "*.example.com", "tiny.alise.test", "1.2.3.4", "a" * 63 + ".com", "a" * 64 + ".com", "*.a", "0", "xn--a.b",
        ".".join(["a" * 49] * 5), "*." + "a" * 251, "localhost",
    )
)  # fmt: skip
RESOURCE_NAMES: Final = st.sampled_from(
    (
        "cpu", "memory", "ephemeral-storage", "nvidia.com/gpu", "amd.com/gpu", "habana.ai/gaudi", "hugepages-2Mi", "hugepages-1Gi",
        "storage",
        "gpu", "a/b/c", "requests.nvidia.com/gpu", "kubernetes.io/x", "/", "", "nvidia.com/", "a b", "x" * 300,
    )
)  # fmt: skip
_STRINGS: Final[Mapping[str, Sequence[str]]] = {
    "uri": (
        "/models/tiny",
        "org/model",
        "a\xa0b",
        "a\x1cb",
        "a\u2003b",
        "$(HOME)",
        "a" * 1024,
        "ü",
        "a'b",
        "a=b",
        "https://user:pw@host/x",
    ),
    "revision": ("main", "--port", "a b", "", "a" * 256, "\x1b[31m"),
    "servedName": ("tiny", "$(HOME)", "a\u2003b", "a" * 256, "急ぎ"),
    "image": ("localhost/a:dev", "a b", " a", "", "a" * 1024, "$(X)", "\x00"),
    "kvCacheDtype": ("auto", "fp8", "fp8_e4m3", "nvfp4", "int4", "AUTO", "a" * 64),
    "encoder": ("/e", "/a\u2003b", "/" + "a" * 1023, "/.."),
    "endpoint": (
        "http://collector:4317",
        "https://otlp.example.com:443/v1/traces",
        "http://collector.observability.svc:4318/v1/traces",
        "http://10.1.2.3:4317",
        "http://[fd00::7]:4317",
        "http://[1::2::3]:4317",
        "http://a:0",
        "http://a:99999",
        "http://a." + "b" * 70 + ":4317",
        "http://a:4317/$(X)",
    ),
    "storageClass": ("fast", "Fast_1", "a b", "a" * 253, "\x1b"),
    "key": ("token", "a b", "..", ".", "a/b", "a" * 253, "ü"),
}
# The names of lists' items and of what fields refer to.
_BY_PATTERN: Final = {
    "name": ("a", "tiny", "team-a", "A_1", "HOME", "HF_HOME", "HF_TOKEN", "VLLM_CPU_KVCACHE_SPACE", "VLLM_API_KEY",
             "VLLM_USE_RUST_FRONTEND",
             "gold", "batch", "größe", "two words", "a" * 63, "a" * 253, "A-b.c"),
    "class": ("gold", "batch", "größe"),
    "request": ("a", "r"),
    "value": ("", "0", "1", "9" * 5000, "٣", "x" * 20_000, "$(HOME)", "\x00", "a\nb"),
}  # fmt: skip


def several(draw: st.DrawFn, values: Values, least: int, most: int) -> list[Any]:
    """From `least` to `most` values, each number as often as another: hypothesis' own lists are short most of the time."""
    return [draw(values) for _ in range(draw(st.integers(least, most)))]


def strings(name: str, node: Mapping[str, Any]) -> Values:
    """Strings that the schema admits, for the field of this name: usual ones, and such at the edge of what it says."""
    least, most, pattern = node.get("minLength", 0), node.get("maxLength", 10**9), node.get("pattern")
    pool = [*_STRINGS.get(name, ()), *_BY_PATTERN.get(name, ()), *_ODD_TEXTS, "a" * min(most, 5000)]
    # As the API server matches: its \\s has only ASCII's blanks, and its $ is the end of the text.
    matcher = re.compile(pattern.replace("$", r"\Z"), re.ASCII) if pattern is not None else None
    fits = [one for one in pool if least <= len(one) <= most and (matcher is None or matcher.search(one))]
    return st.sampled_from(list(dict.fromkeys(fits)))


def integers(node: Mapping[str, Any]) -> Values:
    """Whole numbers at the edges of the schema's bounds."""
    least, most = node.get("minimum", -(2**31)), node.get("maximum", 2**31 - 1)
    edges = {least, least + 1, most - 1, most, min(most, max(least, 2)), min(most, max(least, 300))}
    return st.sampled_from(sorted(edges))
