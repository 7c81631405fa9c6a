"""Drawings: nothing overlaps, nothing leaves the picture, every bar says what it stands for."""

from __future__ import annotations

from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench_report.made_records import make_record
from edge_reclass_bench.report.bars import NARROW, WIDE, Bar, Segment, bar_chart
from edge_reclass_bench.report.curves import Curve, domain, ecdf_chart
from edge_reclass_bench.report.figures import figures
from edge_reclass_bench.report.scale import Scale, from_zero, suited
from edge_reclass_bench.report.source import tagged
from edge_reclass_bench.report.svg import Box, Canvas
from edge_reclass_bench.report.text import width_of

SIX = {f"a-very-long-name-that-somebody-gave-a-stage-{i}": mean for i, mean in enumerate((0, 0.02, 3, 70, 900, 14_000))}

RECORDS = {
    "three stages": [make_record()],
    "with a device's clock": [make_record(device=True)],
    "one stage": [make_record({"fma": 46.0})],
    "six stages, long names, zero": [make_record(SIX, jobs=1)],
    "all zero": [make_record({"fma": 0.0, "mert": 0.0}, decode=0.0, without=("single-stream", "offline"))],
    "three records": [make_record(), make_record(device=True, seed=3), make_record({"fma": 40.0})],
    "only stages": [make_record(without=("single-stream", "offline", "cold-start", "peers", "accounting"))],
}


def check_layout(canvas: Canvas, height: float) -> None:
    picture = Box(0.0, 0.0, canvas.width, height)
    for placed in canvas.texts:
        assert placed.box.inside(picture), f"{placed} leaves {picture}"
    for one, other in combinations(canvas.texts, 2):
        assert not one.box.overlaps(other.box), f"{one} overlaps {other}"


@pytest.mark.parametrize("name", RECORDS)
def test_no_text_overlaps_or_leaves_the_picture(name):
    sources = tagged([(f"file {i}", record) for i, record in enumerate(RECORDS[name])])
    found = figures(sources)
    assert found[0].key == "stages"
    for figure in found:
        for drawing in figure.drawings:
            for canvas, height in (drawing.wide, drawing.narrow):
                assert canvas.texts
                check_layout(canvas, height)


def test_the_check_finds_an_overlap_and_an_escape():
    canvas = Canvas(100)
    canvas.text(10, 20, "one")
    canvas.text(20, 22, "two")
    with pytest.raises(AssertionError, match="overlaps"):
        check_layout(canvas, 50)
    canvas = Canvas(20)
    canvas.text(10, 20, "too long")
    with pytest.raises(AssertionError, match="leaves"):
        check_layout(canvas, 50)


values = st.one_of(st.just(0.0), st.floats(1e-6, 1e7))
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(
    rows=st.lists(
        st.tuples(names, st.lists(values, min_size=1, max_size=6), st.text("0123456789 ms", max_size=30)),
        min_size=1,
        max_size=8,
    ),
    width=st.sampled_from([WIDE, NARROW]),
    tag=st.sampled_from(["", "A", "AB"]),
)
def test_bars_keep_their_texts_apart_whatever_the_values_and_names(rows, width, tag):
    bars = [
        Bar(name, tuple(Segment("p-run", value, "run", "hint") for value in parts), text, tag)
        for name, parts, text in rows
    ]
    canvas, height = bar_chart(bars, "time per track, ms", width=width)
    check_layout(canvas, height)


@given(
    curves=st.lists(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), min_size=1, max_size=3),
    width=st.sampled_from([WIDE, NARROW]),
)
@example(curves=[[5e-324]], width=WIDE)
def test_curves_keep_their_texts_apart(curves, width):
    drawn = [
        Curve(f"curve {i}", "s-warm", tuple(samples), (("p50", 0.5, min(samples)), ("p99", 0.99, max(samples))))
        for i, samples in enumerate(curves)
    ]
    canvas, height = ecdf_chart(drawn, "time per track, ms", "ms", width=width, values=domain(drawn))
    check_layout(canvas, height)


def rectangles(canvas: Canvas, css: str) -> list[tuple[float, float]]:
    """Left edge and width of the boxes with the class ``css``."""
    root = ElementTree.fromstring(canvas.svg(100, identity="x", title="t", description="d", css="wide"))
    found = [node for node in root.iter("rect") if css in node.attrib["class"].split()]
    return [(float(node.attrib["x"]), float(node.attrib["width"])) for node in found]


def test_lengths_are_in_proportion_and_parts_lie_end_to_end():
    bars = [
        Bar("one", (Segment("p-run", 300.0, "", ""), Segment("p-head", 100.0, "", "")), "400 ms"),
        Bar("half", (Segment("p-run", 150.0, "", ""),), "150 ms"),
    ]
    canvas, _ = bar_chart(bars, "ms", width=WIDE)
    (left, first), (_, second) = rectangles(canvas, "p-run")
    ((head_left, _),) = rectangles(canvas, "p-head")
    assert first == pytest.approx(2 * second, abs=2.0)  # the hairline between the parts
    assert head_left == pytest.approx(left + first, abs=2.0)


@given(low=st.floats(1e-6, 1e3), factor=st.floats(31, 1e9), log=st.booleans(), width=st.floats(60, 1000))
def test_ticks_are_inside_ascending_and_their_numbers_apart(low, factor, log, width):
    scale = Scale(low if log else 0.0, low * factor, 0.0, width, log)
    ticks = scale.ticks(13.0, width)
    values = [tick.value for tick in ticks]
    assert ticks and values == sorted(set(values))
    assert all(scale.low * (1 - 1e-6) <= value <= scale.high * (1 + 1e-6) for value in values)
    assert all(a.at < b.at and a.right < b.left for a, b in pairwise(ticks))


def test_counts_have_whole_numbers_and_labels_keep_clear_of_intervals():
    bars = [Bar("fma", (Segment("s-exit", 3.0, "decided", ""),), "3 in")]
    canvas, _ = bar_chart(bars, "tracks", width=WIDE, whole=True)
    assert [placed.text for placed in canvas.texts if placed.text.replace(".", "").isdigit()] == ["0", "1", "2", "3"]
    assert "decided" in {placed.text for placed in canvas.texts}
    crossed = [Bar("fma", (Segment("s-exit", 3.0, "decided", ""),), "3 in", interval=(0.5, 4.0))]
    canvas, _ = bar_chart(crossed, "tracks", width=WIDE)
    assert "decided" not in {placed.text for placed in canvas.texts}


def test_axes_fit_the_values():
    assert from_zero([0.0, 0.0], 0, 100) == Scale(0.0, 1.0, 0, 100)
    assert not suited([10.0, 40.0], 0, 100).log
    assert suited([10.0, 4000.0], 0, 100).log
    assert not suited([0.0, 4000.0], 0, 100).log, "a logarithmic axis has no zero"
    scale = suited([10.0, 4000.0], 0, 100)
    assert 0 < scale.at(10.0) < scale.at(200.0) < scale.at(4000.0) < 100


def test_run_gives_way_to_the_device_parts_and_they_add_up_to_it():
    (record,) = RECORDS["with a device's clock"]
    drawing = figures(tagged([("a", record)]))[0].drawings[1]
    shares = {
        css: sum(width for _, width in rectangles(drawing.wide[0], css)) for css in ("p-compute", "p-copy_in", "p-run")
    }
    assert shares["p-run"] == 0.0
    assert shares["p-compute"] > 10 * shares["p-copy_in"] > 0.0


def test_estimated_width_is_not_below_that_of_a_wide_font():
    # DejaVu Sans, advance widths in units of 1/2048 em.
    advances = {
        "a": 1255,
        "m": 1995,
        "W": 2025,
        "i": 569,
        "0": 1303,
        "M": 1767,
        " ": 651,
        "%": 1946,
        "G": 1587,
        "@": 2048,
    }
    for character, advance in advances.items():
        assert width_of(character, 1.0) >= advance / 2048, character
