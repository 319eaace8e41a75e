"""A Kubernetes object as the text of a Helm template. Pure: knows no files and no Helm.

An object holds `Inline` for a scalar and `Lines` for keys or items where the template has more than YAML. Each becomes a marker in the
YAML. Then an `Inline` replaces its marker, and `Lines` the line of theirs, at its indentation. `chart.py` calls it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

Object = dict[str, Any]
_MARKER: Final = re.compile(r"^(?P<indent> *)(?:- )?ALISE_BLOCK_(?P<number>\d+)(?:: '')?$", re.MULTILINE)
_INLINE: Final = re.compile(r"ALISE_INLINE_(\d+)_")
_BRACES: Final = re.compile(r"\{\{|\}\}")


@dataclass(frozen=True, slots=True)
class Inline:
    """An expression that stands for a scalar."""

    expression: str


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of a template that stand for keys of an object or for items of a list. `{n}` is the indentation of what is nested in them."""

    lines: tuple[str, ...]


def block(key: str, value: str) -> Lines:
    """A key whose object or list is a value's, present unless the value is empty."""
    return Lines((f"{{{{- with {value} }}}}", f"{key}:", "{{- toYaml . | nindent {n} }}", "{{- end }}"))


def when(condition: str, items: list[Any]) -> Lines:
    """Items of a list that are there under a condition."""
    return Lines((f"{{{{- if {condition} }}}}", *_dumped(items).splitlines(), "{{- end }}"))


def when_keys(condition: str, keys: Object) -> Lines:
    """Keys of an object that are there under a condition."""
    return Lines((f"{{{{- if {condition} }}}}", *_dumped(keys).splitlines(), "{{- end }}"))


def render(document: Object) -> str:
    """The document's YAML with its expressions."""
    blocks: list[Lines] = []
    inline: list[Inline] = []

    def marked(node: Any) -> Any:
        if isinstance(node, Inline):
            inline.append(node)
            return f"ALISE_INLINE_{len(inline) - 1}_"
        if isinstance(node, Mapping):
            found = {}
            for key, value in node.items():
                if isinstance(value, Lines):
                    blocks.append(value)
                    found[f"ALISE_BLOCK_{len(blocks) - 1}"] = ""
                else:
                    found[key] = marked(value)
            return found
        if isinstance(node, list):
            return [marked(item) for item in node]
        if isinstance(node, Lines):
            blocks.append(node)
            return f"ALISE_BLOCK_{len(blocks) - 1}"
        return node

    def lines(found: re.Match[str]) -> str:
        indent = found["indent"]
        nested = str(len(indent) + 2)
        return "\n".join(f"{indent}{line.replace('{n}', nested)}" for line in blocks[int(found["number"])].lines)

    text = _MARKER.sub(lines, _dumped(marked(document)))
    return _INLINE.sub(lambda found: f"{{{{ {inline[int(found[1])].expression} }}}}", text)


def _dumped(value: Any) -> str:
    """YAML in which braces of other template languages, such as Prometheus', are no expressions of Helm's."""
    return _BRACES.sub(lambda found: f'{{{{ "{found[0]}" }}}}', yaml.safe_dump(value, sort_keys=False, width=1000))


def guarded(condition: str, text: str) -> str:
    """A template that is rendered under a condition; always without one."""
    return f"{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n" if condition else text
