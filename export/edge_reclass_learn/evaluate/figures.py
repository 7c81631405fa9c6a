"""The pictures of an evaluation's page. Every number in one is of the record, but for the ticks of its axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from matplotlib.figure import Figure as Canvas

from edge_reclass_learn.evaluate import record as records
from edge_reclass_learn.evaluate.record import Judgement, Record
from edge_reclass_learn.evaluate.tables import name, points, share, step_name
from edge_reclass_learn.pages.drawing import GROUND, colour, finished, style
from edge_reclass_learn.pages.skeleton import Figure
from edge_reclass_learn.pages.text import count, number, percent, plain

_WIDTH: Final = 4.3
"""Inches, of which a CSS pixel is drawn for every point at least: so much fits on a phone."""
_LABEL: Final = 22
"""Characters of a name beside a bar."""
_LONG: Final = 28
"""The same where names are longer by nature."""
_BLANK: Final = {"facecolor": GROUND, "edgecolor": "none", "pad": 1}
"""Behind a text that would stand on a line."""
_SLICES: Final = 8
"""Slices of one kind, those of most tracks, that are drawn; the tables have all."""
_ELSEWHERE: Final = "All its numbers are in the tables below."


@dataclass(frozen=True)
class _Row:
    """A line of a picture: a heading where it has no ``figure``."""

    label: str
    figure: records.Figure | None
    text: str = ""


def of_bundle(judged: Judgement, several: bool) -> list[Figure]:
    """The pictures of one bundle; ``several``: the titles say whose they are."""
    drawers: tuple[Callable[[Judgement], Iterator[Figure]], ...] = (
        _genres, _breakdowns, _reliability, _risk, _funnel
    )  # fmt: skip
    with style():
        found = [figure for draw in drawers for figure in draw(judged)]
    if several:
        found = [Figure(f"{one.title} ({name(judged.name)})", one.lead, one.svg) for one in found]
    return found


def of_comparisons(record: Record) -> list[Figure]:
    """What compares the bundles."""
    with style():
        return list(_comparisons(record))


def of_others(record: Record) -> list[Figure]:
    """What other approaches and encoders find."""
    with style():
        return list(_others(record))


def _genres(judged: Judgement) -> Iterator[Figure]:
    rows = [
        _Row(one.genre, one.recall, f"{percent(one.recall.value)} of {count(one.tracks)}")
        for one in sorted(judged.genres, key=lambda one: -one.recall.value)
    ]
    if rows:
        lead = "Of the tracks of each genre, the share that is found. Lines are 95\u00a0% intervals."
        yield _dots("Which genres are found", lead, rows)


def _breakdowns(judged: Judgement) -> Iterator[Figure]:
    rows = []
    for by in judged.breakdowns:
        if len(by.slices) < 2:
            continue
        most = sorted(by.slices, key=lambda one: -one.tracks)[:_SLICES]
        rows.append(_Row(by.name, None))
        rows += [
            _Row(one.value, one.accuracy, f"{percent(one.accuracy.value)} of {count(one.tracks)}")
            for one in by.slices
            if one in most
        ]
    if rows:
        lead = "The share that is found of tracks that are alike in one thing. Their genres may make the difference."
        yield _dots("By length, rates, loudness, type and source", lead, rows)


def _comparisons(record: Record) -> Iterator[Figure]:
    pairs = [one for one in record.comparisons if one.tracks]
    if not pairs:
        return
    canvas, axes = _canvas(2 * len(pairs) + 1)
    said = []
    for row, one in enumerate(pairs):
        found = one.difference
        axes.plot([100 * found.low, 100 * found.high], [row, row], color=colour("blue"), linewidth=2)
        axes.plot(100 * found.value, row, "o", color=colour("blue"))
        text = f"{points(found.value)} points, p = {number(one.p, 2)}"
        pair = f"{name(one.b, _LABEL)} against {name(one.a, _LABEL)}"
        axes.annotate(f"{pair}: {text}", (0, row - 0.3), xycoords=("axes fraction", "data"), bbox=_BLANK)
        said.append(f"{pair}: {text}")
    axes.axvline(0, color=colour("grey"), linewidth=1)
    axes.set_ylim(len(pairs) - 0.6, -0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    _symmetric(axes, [bound for one in pairs for bound in (one.difference.low, one.difference.high)])
    lead = "Accuracy of the one less that of the other, on the same tracks. A line that crosses 0 shows no difference."
    yield finished(canvas, "Which bundle finds more", lead, f"Differences of accuracy. {'; '.join(said)}.")


def _symmetric(axes: Any, bounds: Sequence[float]) -> None:
    """An axis of percentage points about 0, as wide as it has to be, with ticks at both ends and at 0."""
    end = next(one for one in (2, 5, 10, 20, 50, 100) if 100 * max(map(abs, bounds), default=0.0) <= one)
    axes.set_xlim(-end * 1.02, end * 1.02)
    axes.set_xticks([-end, 0, end], [f"−{end} points", "0", f"+{end} points"])


def _others(record: Record) -> Iterator[Figure]:
    for title, rows in (
        ("Other approaches", [_Row(one.name, one.accuracy) for one in record.baselines]),
        ("Encoders", [_Row(f"{one.bundle}: {one.stage}", one.accuracy) for one in record.encoders]),
    ):
        able = [_Row(row.label, row.figure, percent(row.figure.value)) for row in rows if row.figure is not None]
        if able:
            lead = "The share of tracks that each finds on the same folds."
            yield _dots(title, lead, sorted(able, key=lambda row: -row.figure.value if row.figure else 0.0), _LONG)


def _reliability(judged: Judgement) -> Iterator[Figure]:
    bins = [one for one in judged.calibration.bins if one.accuracy is not None and one.confidence is not None]
    if not bins:
        return
    canvas = Canvas(figsize=(_WIDTH, 4.4))
    axes, below = canvas.subplots(2, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], "--", color=colour("grey"), linewidth=1)
    axes.annotate("as sure as right", (0.03, 0.08), rotation=40, color=colour("slate"), fontsize="small")
    for one in bins:
        if one.accuracy is not None:
            axes.plot([one.confidence] * 2, [one.accuracy.low, one.accuracy.high], color=colour("blue"), linewidth=1)
            axes.plot(one.confidence, one.accuracy.value, "o", color=colour("blue"), markersize=5, clip_on=False)
    below.bar([one.low for one in bins], [one.tracks for one in bins], [one.high - one.low for one in bins],
              align="edge", color=colour("slate"), edgecolor="none")  # fmt: skip
    most = max(bins, key=lambda one: one.tracks)
    below.set_yticks([0, most.tracks], ["0", count(most.tracks)])
    below.set_ylabel("tracks")
    axes.set_ylabel("found")
    _percents(axes.yaxis, 1.0)
    _percents(below.xaxis, 1.0)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    below.set_xlabel("confidence of the verdict")
    error = f"Expected calibration error {number(judged.calibration.ece)}"
    lead = f"How often verdicts of one confidence are right. Below the dashes: too sure. {error}."
    yield finished(canvas, "Whether scores can be believed", lead, f"Reliability diagram. {error}. {_ELSEWHERE}")


def _risk(judged: Judgement) -> Iterator[Figure]:
    found = judged.risk_coverage
    curve = [(one.coverage, one.risk) for one in found.points if one.risk is not None]
    if len(curve) < 2:
        return
    canvas = Canvas(figsize=(_WIDTH, 3.0))
    axes = canvas.subplots()
    axes.plot([at for at, _ in curve], [risk for _, risk in curve], color=colour("blue"), linewidth=1.5)
    said = f"Area under the curve {number(found.aurc)}"
    chosen = found.chosen
    highest = max(risk for _, risk in curve)
    if chosen is not None and chosen.risk is not None and judged.min_confidence is not None:
        highest = max(highest, chosen.risk)
        said = (
            f"With min_confidence {plain(judged.min_confidence)}, {percent(chosen.coverage)} of the tracks are sure,"
            f" and {percent(chosen.risk)} of those are wrong"
        )
        axes.plot(chosen.coverage, chosen.risk, "D", color=colour("red"), markersize=7)
        left = chosen.coverage > 0.5
        place, side = ((-10, 8), "right") if left else ((10, -14), "left")
        text = f"min_confidence {plain(judged.min_confidence)}"
        axes.annotate(text, (chosen.coverage, chosen.risk), place, textcoords="offset points", ha=side)
    axes.set_xlabel("sure of so many tracks")
    axes.set_ylabel("of those, wrong")
    _percents(axes.xaxis, 1.0)
    _percents(axes.yaxis, highest)
    axes.set_xlim(0, 1.01)
    lead = f"If the least sure tracks get no genre, fewer of the others are wrong. {said}."
    yield finished(canvas, "What it gains to be unsure", lead, f"Risk against coverage. {said}. {_ELSEWHERE}")


def _percents(axis: Any, highest: float) -> None:
    """Ticks of 25 % or 10 %, up to the first that is not below ``highest``; figures have a decimal, these have none.

    There is always one above 0: an axis of no length cannot be drawn.
    """
    step = 25 if highest > 0.5 else 10
    ticks = [tick for tick in range(0, 101, step) if tick < 100 * max(highest, 0.01) + step]
    axis.set_ticks([tick / 100 for tick in ticks], [f"{tick} %" for tick in ticks])
    axis.axes.set(**{f"{axis.axis_name}lim": (0, ticks[-1] / 100)})


def _funnel(judged: Judgement) -> Iterator[Figure]:
    steps = judged.funnel
    if not steps:
        return
    canvas, axes = _canvas(2 * len(steps))
    most, said = max(1, *(step.reached for step in steps)), []
    for row, step in enumerate(steps):
        right = "" if step.accuracy is None else f", {percent(step.accuracy.value)} right"
        text = f"{count(step.stopped)} of {count(step.reached)} stop{right}"
        axes.barh(row, step.reached / most, 0.4, color="none", edgecolor=colour("slate"), linewidth=0.8)
        axes.barh(row, step.stopped / most, 0.4, color=colour("green"))
        axes.annotate(f"{name(step_name(step), _LABEL)}: {text}", (0, row - 0.32))
        said.append(f"{name(step_name(step))}: {text}")
    axes.set_ylim(len(steps) - 0.6, -0.8)
    axes.set_xlim(0, 1.01)
    axes.axis("off")
    lead = "Steps of the cascade in order. Outlined: tracks that come to a step. Filled: those that stop there."
    yield finished(canvas, "Who leaves where", lead, f"Exit funnel. {'; '.join(said)}.")


def _canvas(rows: float) -> tuple[Canvas, Any]:
    canvas = Canvas(figsize=(_WIDTH, 0.5 + 0.23 * rows))
    return canvas, canvas.subplots()


def _dots(title: str, lead: str, rows: Sequence[_Row], length: int = _LABEL) -> Figure:
    """A dot with its interval for each row, its label before it and its text behind."""
    canvas, axes = _canvas(len(rows))
    labels = [name(row.label, length) for row in rows]
    # About 5 points for a character: labels, dots and texts share the width.
    canvas.subplots_adjust(left=5 * max(map(len, labels)) / (72 * _WIDTH), right=1 - 70 / (72 * _WIDTH))
    for place, row in enumerate(rows):
        if row.figure is None:
            continue
        if place % 2:
            axes.axhspan(place - 0.5, place + 0.5, color=colour("grey"), alpha=0.12, linewidth=0)
        axes.plot([row.figure.low, row.figure.high], [place, place], color=colour("blue"), linewidth=2)
        axes.plot(row.figure.value, place, "o", color=colour("blue"), markersize=5, clip_on=False)
        axes.annotate(row.text, (1.05, place), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)
    axes.set_yticks(range(len(rows)), labels)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        if row.figure is None:
            tick.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axes.set_xlim(0, 1)
    said = "; ".join(f"{name(row.label)}: {row.text}, {share(row.figure)}" for row in rows if row.figure is not None)
    return finished(canvas, title, lead, f"{title}. {said}.")
