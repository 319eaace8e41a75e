"""Puts the report together: sentences computed from the rows, and the page that holds pictures and tables. `proof.py` calls it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tests.bench import proof_names as names
from tests.bench.harness import Row
from tests.bench.proof_draw import DARK, INK, PAPER, RULE, variable
from tests.bench.proof_measures import NOTICED, ratios, spread, where, without_gain
from tests.bench.proof_tables import Table, main_rows, ordered_sets

TEMPLATE: Final = "proof.html.j2"
_VERDICTS: Final = {"met": "met", "missed": "missed", "not measured": "open"}
_OVERLOAD: Final = 1.1


def page(context: Mapping[str, Any]) -> str:
    """Returns the report as one HTML document that loads nothing."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"code": _code, "breakable": _breakable, "together": _together}
    colors = {"colors": DARK, "variable": variable, "ink": INK, "rule": RULE, "paper": PAPER, "verdicts": _VERDICTS}
    return environment.get_template(TEMPLATE).render(**colors, **context)


def _code(text: str) -> Markup:
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _breakable(text: str) -> Markup:
    """Lets a long name go on in the next line after an underscore."""
    return Markup(str(escape(text)).replace("_", "_<wbr>"))


def _together(text: str) -> Markup:
    """Keeps a range in one line, and marks code."""
    return Markup(re.sub(r"(\([^()]*–[^()]*\))", r'<span class="range">\1</span>', str(_code(text))))


def markdown(table: Table) -> str:
    """Returns the table as Markdown."""
    lines = [f"# {table.caption}", "", f"| {' | '.join(table.head)} |", "|---" * len(table.head) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in table.rows]
    return "\n".join([*lines, *(["", table.note] if table.note else []), ""])


def lead(rows: Sequence[Row]) -> list[str]:
    """Returns what the first picture shows in overload, a paragraph for each data set that all three systems were measured on."""
    said = []
    for data in names.MAIN_DATA:
        own = {system: where(main_rows(rows, data), load=_OVERLOAD, system=system) for system in (names.FCFS, names.PRIORITY, names.ALISE)}
        if all(own.values()):
            shares = {system: f"{100 * spread(row['in10'] for row in found).mean:.0f}%" for system, found in own.items()}
            worst = {system: f"{spread(row['e2e_worst'] for row in found).mean:,.0f} s" for system, found in own.items()}
            said.append(
                f"{names.data(data)} at load {_OVERLOAD:g}: alise serves {shares[names.ALISE]} of the requests within ten times their "
                f"unloaded time, and the longest one takes {worst[names.ALISE]}. Stock vLLM serves {shares[names.FCFS]} first come, "
                f"first served (longest {worst[names.FCFS]}), and {shares[names.PRIORITY]} with priorities from our predictions "
                f"(longest {worst[names.PRIORITY]})."
            )
    return said


def no_gain(rows: Sequence[Row]) -> str:
    """Returns the sentences about the loads and the profiles at which alise does not help; empty without rows."""
    main, others = [], []
    for profile, data in ordered_sets(rows):
        own = where(rows, profile=profile, data=data, kv_bits=16)
        seen = [load for load, _ in ratios(own, "norm_mean", names.ALISE)]
        idle = without_gain(own)
        if not idle:
            continue
        if profile == names.MAIN_PROFILE:
            main.append(f"{_loads(idle, seen)} with {names.data(data)}")
        elif idle == seen:
            others.append(f"{names.profile(profile)} with {names.data(data)} (loads {_span(seen)})")
    said = []
    if main:
        device = names.profile(names.MAIN_PROFILE)
        said.append(
            f"On {device}, mean latency per token improves by less than {NOTICED:.0%} over first come, first served {_listed(main)}."
        )
    if others:
        said.append(f"No load that was measured gains on {'; '.join(others)}.")
    harmed = [
        f"{names.profile(profile)} with {names.data(data)} at load {load:g} ({ratio.mean:.2f} times)"
        for profile, data in ordered_sets(rows)
        for load, ratio in ratios(where(rows, profile=profile, data=data, kv_bits=16), "e2e_mean", names.ALISE)
        if ratio.mean > 1 + NOTICED
    ]
    if harmed:
        said.append(f"The mean end-to-end time is longer than first come, first served on {_listed(harmed)}.")
    return " ".join(said)


def counted(verdicts: Sequence[str]) -> str:
    """Returns how many figures met their goals."""
    met, missed, left = (verdicts.count(kind) for kind in ("met", "missed", "not measured"))
    tail = f", and {left} were not measured" if left else ""
    return f"{met} figures met their goal, {missed} missed it{tail}."


def seeds_of(rows: Sequence[Row]) -> str:
    """Returns how many seeds each profile has, as one number or a range."""
    each = {len({row["seed"] for row in where(rows, profile=profile, data=data)}) for profile, data in ordered_sets(rows)}
    return "No" if not each else f"{min(each)}" if len(each) == 1 else f"{min(each)} to {max(each)}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _loads(found: Sequence[float], seen: Sequence[float]) -> str:
    if len(found) > 1 and found == seen[: len(found)]:
        return f"up to load {found[-1]:g}"
    return f"at load{'' if len(found) == 1 else 's'} {', '.join(f'{load:g}' for load in found)}"


def _span(found: Sequence[float]) -> str:
    return f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g} to {found[-1]:g}"
