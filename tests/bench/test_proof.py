"""The report of the gain, from invented rows."""

import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.bench import proof, proof_figures, proof_tables
from tests.bench.harness import Figure, Row
from tests.bench.proof_draw import Picture, for_page
from tests.bench.proof_figures import Measured, Wanted
from tests.bench.proof_gather import Piece, Progress, gathered, read
from tests.bench.proof_measures import Rate, ratios, served, without_gain
from tests.bench.proof_page import markdown, no_gain

H100 = "h100-qwen3-32b"


def gain(system: str, load: float = 1.1, seed: int = 0, **changes: object) -> Row:
    return {
        "kind": "gain", "suite": "gain", "profile": H100, "kv_bits": 16, "data": "alpaca", "load": load, "seed": seed, "system": system,
        "requests": 100, "rejected": 0, "in5": 0.9, "in10": 0.95, "norm_mean": 2.0, "ttft_mean": 1.0, "ttft_p99": 2.0, "e2e_mean": 5.0,
        "e2e_p99": 9.0, "e2e_worst": 12.0, "worst_by_length": [[16, 3.0], [256, 12.0]], "preemptions": 1, "recomputed_tokens": 0,
        "tokens_per_second": 700.0, "cpu_seconds": 1.0, "window_seconds": 600.0, **changes,
    }  # fmt: skip


def grid() -> list[Row]:
    systems = ("stock-fcfs", "stock-priority", "alise", "alise-true", "alise:gittins")
    better = {"stock-fcfs": 0.5}
    return [
        gain(system, load, seed, in10=better.get(system, 0.9) + 0.01 * seed, norm_mean=2.0 / (1 + (system != "stock-fcfs") * (load > 0.6)))
        for system in systems
        for load in (0.5, 0.9, 1.1)
        for seed in (0, 1)
    ]


def share(rows: Sequence[Row]) -> list[Figure]:
    found = [row["in10"] for row in rows if row["system"] == "alise"]
    return [Figure("in10_load110_h100_alpaca", sum(found) / len(found), "share", "higher", 0.85)] if found else []


# --- measures -------------------------------------------------------------------------------------------------------------------------


def test_ratios_are_paired_by_seed() -> None:
    rows = [gain("stock-fcfs", seed=0, e2e_p99=10.0), gain("stock-fcfs", seed=1, e2e_p99=20.0)]
    rows += [gain("alise", seed=0, e2e_p99=5.0), gain("alise", seed=1, e2e_p99=30.0)]
    ((load, found),) = ratios(rows, "e2e_p99", "alise")
    assert (load, found.mean, found.low, found.high) == (1.1, 1.0, 0.5, 1.5)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        pytest.param({0.9: 1.0, 1.0: 0.8}, Rate(0.95, True), id="between two loads, by a straight line"),
        pytest.param({0.9: 1.0, 1.0: 0.95}, Rate(1.0, False), id="not bounded where every load is served"),
        pytest.param({0.9: 0.5, 1.0: 0.4}, None, id="none where no load is served"),
        pytest.param({}, None, id="none without rows"),
    ],
)
def test_the_highest_load_that_is_served(shares: dict[float, float], expected: Rate | None) -> None:
    found = served([gain("alise", load, in5=value) for load, value in shares.items()])
    assert (found and (round(found.load, 6), found.bounded)) == (expected and (expected.load, expected.bounded))


def test_a_load_whose_latency_per_token_hardly_changes_is_without_gain() -> None:
    assert without_gain(grid()) == [0.5]


def test_the_page_says_where_alise_does_not_help() -> None:
    rows = [*grid(), gain("stock-fcfs", profile="h200-qwen3-8b"), gain("alise", profile="h200-qwen3-8b")]
    sentence = no_gain(rows)
    assert "at load 0.5 with Alpaca" in sentence
    assert "No load that was measured gains on Qwen3-8B on one H200" in sentence


def test_the_page_says_where_alise_makes_requests_slower() -> None:
    rows = [gain("stock-fcfs", e2e_mean=2.0), gain("alise", e2e_mean=3.0)]
    assert "longer than first come, first served on Qwen3-32B on one H100 80 GB with Alpaca at load 1.1 (1.50 times)" in no_gain(rows)


def test_the_longest_answers_have_no_upper_bound() -> None:
    rows = [gain("alise", worst_by_length=[[16, 3.0], [1 << 20, 9.0]])]
    assert [row[0] for row in proof_tables.by_length(rows, "alpaca", 1.1).rows] == ["up to 16", "more than 16"]


# --- figures --------------------------------------------------------------------------------------------------------------------------


def test_the_list_of_figures_can_be_read_and_names_none_twice() -> None:
    listed = [figure.name for figure in proof_figures.wanted()]
    assert len(listed) == len(set(listed))


def test_a_sentence_about_an_unknown_figure_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "figures.toml"
    path.write_text('figure = []\n[sets]\n[commands]\n[missed]\nnothing = "?"\n')
    with pytest.raises(ValueError, match="figures that are not in the list: nothing"):
        proof_figures.wanted(path)


def test_the_spread_of_a_figure_is_that_of_its_seeds() -> None:
    found = proof_figures.measured([gain("alise", seed=0, in10=0.8), gain("alise", seed=1, in10=0.9)], share)
    figure = found["in10_load110_h100_alpaca"]
    assert (round(figure.value, 6), figure.low, figure.high, figure.seeds) == (0.85, 0.8, 0.9, 2)


def test_a_spread_that_a_unit_states_is_taken() -> None:
    assert proof_figures.of_unit(1.0, "ratio, at load 1 [0.9–1.1], 5 seeds") == Measured(1.0, "ratio, at load 1", 0.9, 1.1, 5)


def test_an_ablation_is_the_same_figure_of_another_system() -> None:
    rows = [gain("alise", in10=0.9), gain("alise-true", in10=0.99), gain("stock-fcfs")]
    assert proof_figures.ablated(rows, share) == {"alise-true": {"in10_load110_h100_alpaca": 0.99}}


def test_an_ablation_without_all_loads_of_a_figure_is_not_compared() -> None:
    rows = [gain("alise", 0.9, in10=1.0), gain("alise", 1.1, in10=0.8), gain("alise-true", 1.1, in10=0.99)]
    assert proof_figures.ablated(rows, share) == {"alise-true": {}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(Measured(0.86), "met", id="met"),
        pytest.param(Measured(0.84), "missed", id="missed"),
        pytest.param(None, "not measured", id="not measured"),
    ],
)
def test_a_figure_is_judged_by_its_goal(found: Measured | None, expected: str) -> None:
    assert proof_figures.judged(Wanted("x", "X", "gain", "higher", 0.85, "make x"), found) == expected


def test_a_missed_figure_has_its_reason_and_its_ablations() -> None:
    listed = [Wanted("x", "X", "gain", "higher", 0.85, "make x", "Predictions are not good enough.")]
    table = proof_figures.misses(listed, {"x": Measured(0.8, ablations=(("alise-true", 0.9),))})
    assert table.rows == (("X", "0.800, goal 0.850", "Predictions are not good enough.", "alise with true lengths: 0.900"),)


# --- tables ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(0.12345, "0.123", id="three digits"), pytest.param(123456.7, "123,000", id="whole numbers with separators"),
        pytest.param(0.0, "0", id="zero"), pytest.param(float("nan"), "–", id="no number"), pytest.param(12.345, "12.3", id="a decimal"),
        pytest.param(0.9996, "1.00", id="as many digits as the rounded number has"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float, expected: str) -> None:
    assert proof_tables.number(value) == expected


def test_ordering_and_room_are_measured_apart() -> None:
    rows = [gain("stock-fcfs", load, kv_bits=bits, in5=2 - load - (bits == 16) * 0.1) for bits in (8, 16) for load in (0.9, 1.1, 1.3)]
    rows += [gain("alise", load, kv_bits=bits, in5=2.1 - load - (bits == 16) * 0.1) for bits in (8, 16) for load in (0.9, 1.1, 1.3)]
    found = {row[2]: row[3:5] for row in proof_tables.parts(rows).rows}
    assert found == {"ordering": ("1.10", "1.10"), "room": ("1.10", "1.00"), "ordering and room": ("1.20", "1.09")}


def test_what_gets_worse_is_listed_with_its_loads() -> None:
    rows = [gain("stock-fcfs", load) for load in (0.5, 0.9)] + [gain("alise", 0.5, e2e_p99=9.1), gain("alise", 0.9, e2e_p99=18.0)]
    assert [row[2:] for row in proof_tables.worse(rows).rows] == [("p99 end to end", "2.00 at 0.9")]


def test_a_table_in_markdown_escapes_its_cells() -> None:
    assert "| a\\|b | 1 |" in markdown(proof_tables.Table("T", ("x", "y"), (("a|b", "1"),)))


# --- gathering ------------------------------------------------------------------------------------------------------------------------


def test_pieces_that_are_kept_are_not_measured_again(tmp_path: Path) -> None:
    path, measured = tmp_path / "rows.jsonl", []

    def piece(number: int) -> Piece:
        def rows() -> Iterator[Row]:
            measured.append(number)
            yield {"n": number}

        return Piece(number, f"piece {number}", rows)

    once = list(gathered("test", path, [piece(0)], lambda row: row["n"], {"commit": "c"}))
    both = list(gathered("test", path, [piece(0), piece(1)], lambda row: row["n"], {"commit": "d"}))
    assert (once, both) == ([{"n": 0, "commit": "c"}], [{"n": 0, "commit": "c"}, {"n": 1, "commit": "d"}])
    assert measured == [0, 1]
    assert read(path) == both


def test_pieces_of_another_run_are_taken_where_there_are_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 0, "ours": true}\n')
    pieces = [Piece(number, f"piece {number}", lambda: iter(())) for number in (0, 1)]
    found = gathered("test", path, pieces, lambda row: row["n"], {}, [{"n": 0}, {"n": 1}, {"n": 1}])
    assert list(found) == [{"n": 0, "ours": True}, {"n": 1}, {"n": 1}]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 0}\n{"n": 1, "comm')
    assert read(path) == [{"n": 0}]


def test_the_estimate_of_what_is_left_ignores_kept_rows() -> None:
    now = iter([0.0, 0.0, 0.0, 100.0, 200.0])
    progress = Progress("gain", 14, lambda: next(now))
    progress.start()
    for _ in range(4):
        progress.advance()
    assert progress.sentence() == "gain: 4 of 14, about 17 min left"


# --- the page -------------------------------------------------------------------------------------------------------------------------


def test_a_picture_has_ids_of_its_own_and_the_colours_of_the_page() -> None:
    svg = '<?xml?><svg width="1pt" height="2pt" viewBox="0 0 1 2"><g id="a" style="fill: #0060A8; clip-path: url(#a)"/></svg>'
    assert for_page(svg, "p", "x < y") == (
        '<svg viewBox="0 0 1 2" role="img" aria-label="x &lt; y"><g id="p-a" style="fill: var(--c0060a8); clip-path: url(#p-a)"/></svg>'
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proof")
    listed = [Wanted("in10_load110_h100_alpaca", "Share in time", "gain", "higher", 0.99, "make bench-proof", "It is `hard`.")]
    drawn = dict.fromkeys(("parts", "frontier", "profiles", "emulated"))
    gain = Picture("gain", "Caption", "Alt", for_page('<svg id="a"><g/></svg>', "gain", "Alt"))
    return proof.write(grid(), listed, proof_figures.measured(grid(), share), folder, {**drawn, "gain": gain, "ablations": []})


def test_the_report_loads_nothing_from_elsewhere(report: Path) -> None:
    text = report.read_text()
    assert not re.findall(r'(?:src|href)="(?!#|rows/)[^"]*"|@import|url\((?!#)', text)


def test_the_report_is_well_formed_and_no_id_is_there_twice(report: Path) -> None:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.ids: list[str] = []
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.ids += [value or "" for name, value in attrs if name == "id"]
            if tag not in ("meta", "br", "wbr"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    reader = Reader()
    reader.feed(report.read_text())
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))


def test_the_report_shows_the_verdict_and_why_a_goal_was_missed(report: Path) -> None:
    text = report.read_text()
    assert '<span class="missed">missed</span>' in text
    assert "It is <code>hard</code>." in text


def test_a_range_stays_in_one_line(report: Path) -> None:
    assert '<td>0.905 <span class="range">(0.900–0.910)</span></td>' in report.read_text()


def test_a_table_and_the_rows_are_beside_the_report(report: Path) -> None:
    names = {str(path.relative_to(report.parent)) for path in report.parent.rglob("*") if path.is_file()}
    assert names == {"report.html", "figures.md", "rows/gain.jsonl.gz"}


@pytest.mark.process
def test_every_picture_is_drawn_for_the_page_and_as_a_file(tmp_path: Path) -> None:
    drawn = proof.pictures([*grid(), *(gain(system, kv_bits=8) for system in ("stock-fcfs", "alise"))], tmp_path)
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == ["ablations-alpaca", "frontier", "gain", "parts", "profiles"]
    assert all("<svg" in drawn[name].svg for name in ("gain", "parts", "frontier", "profiles"))
