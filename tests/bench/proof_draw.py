"""Draws a picture once, for two uses: SVG that takes its colours from the page it is in, and a PNG on white.

`proof_pictures.py` and `proof_served.py` draw with it.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench import proof_names as names

INK: Final = "#1a1a1a"
RULE: Final = "#d9d9d9"
PAPER: Final = "#ffffff"
# Colours in the dark by colour in the light; the page declares a variable for each.
DARK: Final[Mapping[str, str]] = {
    INK: "#e8e8e8", RULE: "#4a4a4a", PAPER: "#16181b", **{system.color: system.dark for system in names.SYSTEMS.values()}
}  # fmt: skip
_STYLE: Final = {
    "svg.fonttype": "none", "svg.hashsalt": "alise", "font.size": 10, "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.titlesize": 10.5, "axes.titlelocation": "left", "grid.color": RULE,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "legend.frameon": False,
    "figure.constrained_layout.use": True, "axes.formatter.use_mathtext": False,
}  # fmt: skip
PNG_DPI: Final = 110


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture for the page: `alt` says in a sentence what it shows."""

    name: str
    caption: str
    alt: str
    svg: str


def pyplot() -> Any:
    """Returns matplotlib's pyplot, which draws into files only, with the report's style."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update(_STYLE)
    return plt


def drawn(figure: Any, name: str, caption: str, alt: str, folder: Path, dpi: int = PNG_DPI) -> Picture:
    """Writes NAME.png into the folder and returns the picture for the page."""
    folder.mkdir(parents=True, exist_ok=True)
    # The date would make every run another file.
    figure.savefig(folder / f"{name}.png", dpi=dpi, facecolor="white", metadata={"Software": None})
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    pyplot().close(figure)
    return Picture(name, caption, alt, for_page(text.getvalue(), name, alt))


def for_page(svg: str, name: str, alt: str) -> str:
    """Returns the SVG element alone, with ids of its own, colours as variables, the page's font, and its description."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    for color in DARK:
        text = re.sub(re.escape(color), f"var({variable(color)})", text, flags=re.IGNORECASE)
    text = re.sub(r"('[^']+', )*'[^']+', sans-serif|'DejaVu Sans'", "sans-serif", text)
    head, body = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{_escaped(alt)}">{body}'


def variable(color: str) -> str:
    """Returns the name of the page's variable for a colour."""
    return f"--c{color.removeprefix('#')}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
