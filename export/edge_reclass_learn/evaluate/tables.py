"""The tables of an evaluation's page. Nothing is computed here: every number is one of the record, made readable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Final

from edge_reclass_learn.evaluate.evenly import evenly
from edge_reclass_learn.evaluate.record import (
    Calibration,
    Confusion,
    ExitStep,
    Figure,
    Judgement,
    Measured,
    Record,
    RiskCoverage,
    RiskPoint,
)
from edge_reclass_learn.pages.table import Table, text_of
from edge_reclass_learn.pages.text import NOTHING, count, number, percent, plain, short

_LENGTH: Final = 80
"""Characters of a name that a table shows."""
_HEADING: Final = 20
"""Characters of a name at the head of a column of the confusion matrix."""
_POINTS: Final = 10
"""Points of a risk–coverage curve in its table; the record has all."""


def name(text: str, length: int = _LENGTH) -> str:
    """A genre, bundle or source as the page shows it; any text may be one."""
    return short(text, length) or "(no name)"


def share(figure: Figure | None) -> str:
    """``84.1 % [81.2 %, 86.7 %]``."""
    return _interval(figure, percent)


def points(difference: float) -> str:
    """A difference of shares in percentage points: ``+1.4``."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def step_name(step: ExitStep) -> str:
    """The stage, and its windows where it is left after some."""
    if step.windows is None:
        return name(step.stage)
    return f"{name(step.stage)}, {count(step.windows)} window{'' if step.windows == 1 else 's'}"


def numbers(record: Record) -> Iterator[Table]:
    """All of the record but the confusion matrices, as tables; those without rows are left out."""
    several = len(record.bundles) > 1
    for judged in record.bundles:
        for table in _of_bundle(judged):
            if table.rows:
                title = f"{table.title} ({name(judged.name)})" if several else table.title
                yield Table(title, table.columns, table.rows, table.note)
    yield from (table for table in _of_all(record) if table.rows)


def facts(record: Record) -> Table:
    """Where the numbers come from."""
    data = record.data
    rows = [
        ("data", name(data.name)),
        ("digest of the sounds and labels", data.sha256),
        ("tracks, groups", f"{count(data.tracks)}, {count(data.groups)}"),
        ("tracks that could not be heard", count(data.left_out)),
        ("genres of the data", ", ".join(f"{name(genre.genre)} {count(genre.tracks)}" for genre in data.genres)),
        ("made by", name(record.program)),
        ("seed of folds and intervals", str(record.seed)),
        ("draws of each bootstrap", count(record.draws)),
    ]
    for judged in record.bundles:
        rows += [
            (f"bundle {name(judged.name)}", name(judged.digest)),
            ("its policy", name(judged.policy)),
            ("how it is judged", judged.judged if judged.folds is None else f"{judged.judged}, {judged.folds} folds"),
            ("tracks that it was fitted on, as far as is known", count(judged.known_tracks)),
        ]
    return Table("Facts", ("", ""), tuple(rows))


def confusion(matrix: Confusion, title: str) -> str:
    """The matrix as HTML: counts as text, the share of its row as the strength of a cell's colour."""
    heads = "".join(f'<th scope="col"><span>{text_of(name(said, _HEADING))}</span></th>' for said in matrix.said)
    rows = []
    for label, counts in zip(matrix.labels, matrix.counts, strict=True):
        total, cells = sum(counts), []
        for said, found in zip(matrix.said, counts, strict=True):
            kind = ' class="right"' if said == label else ""
            strength = f' style="--s:{found / total:.2f}"' if found else ""
            cells.append(f"<td{kind}{strength}>{count(found) if found else '·'}</td>")
        rows.append(f'<tr><th scope="row">{text_of(name(label))}</th>{"".join(cells)}</tr>')
    return (
        f'<div class="scroll" tabindex=0 role=region aria-label="{text_of(title)}"><table class="matrix">'
        f"<thead><tr><th>{escape('is ↓   said →')}</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _of_bundle(judged: Judgement) -> Iterator[Table]:
    limit = "" if judged.min_confidence is None else f" (confidence below {plain(judged.min_confidence)})"
    main: Sequence[tuple[str, Figure | None, Callable[[float], str]]] = [
        ("accuracy", judged.accuracy, percent),
        ("mean over the genres", judged.balanced, percent),
        ("macro F1", judged.macro_f1, number),
        ("genre among the first three", judged.top3, percent),
        ("accuracy of the sure", judged.accuracy_sure, percent),
    ]
    rows: list[tuple[str, ...]] = [
        (what, _interval(one, show), count(one.of), one.interval) for what, one, show in main if one is not None
    ]
    rows.append((f"unsure{limit}", f"{count(judged.unsure)} of {count(judged.tracks)}", count(judged.tracks), ""))
    yield Table(
        "Overall",
        ("", ">value [95 % interval]", ">of tracks", "interval"),
        tuple(rows),
        "Every track gets a genre but where it says sure. Wilson's interval takes tracks for independent; the bootstrap"
        " draws groups, such as artists.",
    )
    yield Table(
        "Genres",
        ("genre", ">tracks", ">groups", ">found", ">recall", ">said", ">precision", ">F1"),
        tuple(
            (
                name(one.genre),
                count(one.tracks),
                count(one.groups),
                count(one.found),
                share(one.recall),
                count(one.said),
                share(one.precision),
                _interval(one.f1, number),
            )
            for one in judged.genres
        ),
        "Recall: of the tracks of a genre, those that are found. Precision: of those that are said to be of it, those"
        " that are.",
    )
    yield Table(
        "Genres that the bundle does not know",
        ("genre", ">tracks"),
        tuple((name(one.genre), count(one.tracks)) for one in judged.not_in_bundle),
        "Their tracks are in no other figure.",
    )
    yield _calibration(judged.calibration)
    yield _risk(judged.risk_coverage)
    yield Table(
        "Steps of the cascade",
        ("step", ">stops above", ">come to it", ">stop there", ">unsure", ">accuracy of those", ">median ms"),
        tuple(
            (
                step_name(step),
                NOTHING if step.accept is None else plain(step.accept),
                count(step.reached),
                count(step.stopped),
                count(step.unsure),
                share(step.accuracy),
                _optional(step.milliseconds),
            )
            for step in judged.funnel
        ),
        "Where no threshold is given, the step is the last, or each fold has its own. Milliseconds are of tracks that"
        " stop there, from decoding to the verdict, on the CPU.",
    )
    for by in judged.breakdowns:
        yield Table(
            f"By {name(by.name)}",
            (name(by.name), ">tracks", ">accuracy"),
            tuple((name(one.value), count(one.tracks), share(one.accuracy)) for one in by.slices),
            f"Not known of {count(by.unknown)} tracks." if by.unknown else "",
        )


def _calibration(found: Calibration) -> Table:
    return Table(
        "Calibration",
        (">confidence above", ">up to", ">tracks", ">mean confidence", ">accuracy"),
        tuple(
            (
                percent(one.low),
                percent(one.high),
                count(one.tracks),
                NOTHING if one.confidence is None else percent(one.confidence),
                share(one.accuracy),
            )
            for one in found.bins
            if one.tracks
        ),
        f"Expected calibration error (ECE): {number(found.ece)}. Brier score: {number(found.brier)}.",
    )


def _risk(found: RiskCoverage) -> Table:
    rows = [_point(one) for one in evenly(found.points, _POINTS)]
    if found.chosen is not None:
        rows.append((*_point(found.chosen)[:3], "as the bundle is"))
    return Table(
        "Risk and coverage",
        (">unsure below", ">sure", ">wrong among the sure", ""),
        tuple(rows),
        f"Some points of the curve; the record has all. Area under the curve (AURC): {number(found.aurc)}.",
    )


def _point(one: RiskPoint) -> tuple[str, str, str, str]:
    return number(one.confidence), percent(one.coverage), NOTHING if one.risk is None else percent(one.risk), ""


def _of_all(record: Record) -> Iterator[Table]:
    yield Table(
        "Comparison on the same tracks",
        (
            "bundles",
            ">tracks",
            ">both right",
            ">only the first",
            ">only the second",
            ">both wrong",
            ">say the same",
            ">first",
            ">second",
            ">difference in points",
            ">McNemar p",
        ),
        tuple(
            (
                f"{name(one.a)} → {name(one.b)}",
                count(one.tracks),
                count(one.both_right),
                count(one.only_a),
                count(one.only_b),
                count(one.both_wrong),
                count(one.same),
                share(one.accuracy_a),
                share(one.accuracy_b),
                _interval(one.difference, points),
                number(one.p),
            )
            for one in record.comparisons
        ),
        "Only tracks whose genre both know. The interval of the difference draws groups.",
    )
    yield Table(
        "Agreement of devices with the CPU at FP32",
        ("bundle", "device", "precisions", ">same verdict", ">largest difference of a score", "why not"),
        tuple(
            (
                name(one.bundle),
                name(one.device),
                ", ".join(f"{name(stage)} {name(kind)}" for stage, kind in one.precisions.items()),
                share(one.same),
                _optional(one.max_difference),
                "" if one.why_not is None else one.why_not,
            )
            for one in record.agreements
        ),
    )
    yield baselines(record)
    yield Table(
        "What groups of features are worth to an approach",
        ("approach", "features", ">accuracy without them, in points"),
        tuple(
            (name(one.name), name(group), points(-lost))
            for one in record.baselines
            for group, lost in (one.importance or {}).items()
        ),
        "Features of the group are those of other tracks.",
    )
    yield encoders(record)


def baselines(record: Record) -> Table:
    """What other approaches find."""
    return Table(
        "Other approaches on the same folds",
        ("approach", *_MEASURED, "version", "note"),
        tuple((name(one.name), *_measured(one), short(one.version, _LENGTH), one.note) for one in record.baselines),
        "Every row is of the tracks whose genre all bundles know, also that of a bundle. Milliseconds are CPU time to"
        " extract the features of a track.",
    )


def encoders(record: Record) -> Table:
    """What a linear probe finds on each encoder."""
    return Table(
        "A linear probe on each encoder, on the same folds",
        ("encoder", *_MEASURED, ">MB", "note"),
        tuple(
            (f"{name(one.bundle)}: {name(one.stage)}", *_measured(one), _optional(one.megabytes), one.note)
            for one in record.encoders
        ),
        "Milliseconds are the median CPU time of a track on one thread, megabytes are of the graph.",
    )


_MEASURED: Final = (">tracks", ">accuracy", ">mean over the genres", ">macro F1", ">ms per track", ">features")


def _measured(one: Measured) -> Sequence[str]:
    return (
        NOTHING if one.accuracy is None else count(one.accuracy.of),
        share(one.accuracy),
        share(one.balanced),
        _interval(one.macro_f1, number),
        _optional(one.milliseconds),
        NOTHING if one.dim is None else count(one.dim),
    )


def _interval(figure: Figure | None, show: Callable[[float], str]) -> str:
    return NOTHING if figure is None else f"{show(figure.value)} [{show(figure.low)}, {show(figure.high)}]"


def _optional(value: float | None) -> str:
    return NOTHING if value is None else number(value)
