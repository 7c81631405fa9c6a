"""The figures of an evaluation as lines for people; every one is in the record."""

from __future__ import annotations

from collections.abc import Iterator

from edge_reclass.run import printable
from edge_reclass_export.engine.report import table
from edge_reclass_learn.evaluate.record import Agreement, Comparison, Figure, Judgement, Record
from edge_reclass_learn.evaluate.tables import baselines, encoders, step_name


def screen(record: Record) -> Iterator[str]:
    """What a user is told at the end."""
    data = record.data
    lost = f"; {data.left_out} could not be heard" if data.left_out else ""
    yield f"{printable(data.name)}: {data.tracks} tracks of {len(data.genres)} genres, {data.groups} groups{lost}"
    for one in record.bundles:
        yield ""
        yield from _bundle(one)
    for pair in record.comparisons:
        yield ""
        yield from _pair(pair)
    for found in (baselines(record), encoders(record)):
        if found.rows:
            yield ""
            rows = [[printable(cell) for cell in row] for row in found.rows]
            yield table([heading for heading, _ in found.headings], rows)
    if record.agreements:
        yield ""
        yield from (_agreement(one) for one in record.agreements)
    if record.warnings:
        yield ""
        yield from record.warnings


def _bundle(one: Judgement) -> Iterator[str]:
    yield f"{printable(one.name)}, policy {one.policy}, {one.judged}: {one.tracks} tracks, {one.groups} groups"
    for text in one.how:
        yield f"  {text}"
    if one.not_in_bundle:
        absent = ", ".join(f"{printable(genre.genre)} ({genre.tracks} tracks)" for genre in one.not_in_bundle)
        yield f"  not in the bundle, and in no figure below: {absent}"
    rows = [
        ["accuracy", *_shown(one.accuracy)],
        ["mean over the genres", *_shown(one.balanced)],
        ["macro F1", *_plain(one.macro_f1)],
        ["genre among the first three", *_shown(one.top3)],
    ]
    if one.unsure:
        limit = f" (confidence below {one.min_confidence:g})" if one.min_confidence is not None else ""
        rows.append([f"unsure{limit}", f"{one.unsure} of {one.tracks}"])
        if one.accuracy_sure is not None:
            rows.append(["accuracy of the others", *_shown(one.accuracy_sure)])
    rows.append(["calibration error (ECE), Brier", f"{one.calibration.ece:.3f}, {one.calibration.brier:.3f}"])
    rows.append(["area under risk–coverage", f"{one.risk_coverage.aurc:.3f}"])
    yield table(["every track gets a genre", "", "95 % interval"], [row + [""] * (3 - len(row)) for row in rows])
    yield ""
    genres = [
        [
            printable(genre.genre),
            str(genre.tracks),
            str(genre.groups),
            *_shown(genre.recall),
            f"{genre.precision.value:.1%}" if genre.precision is not None else "never said",
            f"{genre.f1.value:.3f}",
        ]
        for genre in one.genres
    ]
    yield table(["genre", "tracks", "groups", "found", "95 % interval", "precision", "F1"], genres)
    yield ""
    steps = [
        [
            step_name(step),
            str(step.reached),
            str(step.stopped),
            str(step.unsure),
            *(_shown(step.accuracy) if step.accuracy is not None else ("", "")),
            f"{step.milliseconds:.0f} ms" if step.milliseconds is not None else "",
        ]
        for step in one.funnel
    ]
    timed = ["time"] if any(step.milliseconds is not None for step in one.funnel) else []
    header = ["step of the cascade", "reach it", "stop there", "unsure", "accuracy", "95 % interval", *timed]
    yield table(header, [step[: len(header)] for step in steps])
    yield ""
    for by in one.breakdowns:
        parts = [f"{printable(part.value)} {part.accuracy.value:.0%} of {part.tracks}" for part in by.slices]
        unknown = [f"not known of {by.unknown}"] if by.unknown else []
        yield f"by {by.name}: {'; '.join([*parts, *unknown])}"


def _pair(pair: Comparison) -> Iterator[str]:
    a, b = printable(pair.a), printable(pair.b)
    yield f"{b} against {a}, on {pair.tracks} tracks of {len(pair.genres)} genres that both know"
    low, high = 100 * pair.difference.low, 100 * pair.difference.high
    yield (
        f"  {100 * pair.difference.value:+.1f} points ({low:+.1f} to {high:+.1f}): {pair.accuracy_a.value:.1%} →"
        f" {pair.accuracy_b.value:.1%}; McNemar p = {pair.p:.2g}"
    )
    yield (
        f"  both right {pair.both_right}, only {a} {pair.only_a}, only {b} {pair.only_b}, both wrong {pair.both_wrong};"
        f" the same genre for {pair.same}"
    )


def _agreement(one: Agreement) -> str:
    graphs = ", ".join(f"{stage} {precision}" for stage, precision in one.precisions.items())
    what = f"{printable(one.bundle)} on {one.device}" + (f" ({graphs})" if graphs else "")
    if one.same is None:
        return f"{what}: not compared: {printable(one.why_not or '')}"
    gap = "" if one.max_difference is None else f", scores differ by at most {one.max_difference:.2g}"
    low, high = one.same.low, one.same.high
    return (
        f"{what}: the same verdict as the CPU at FP32 for {one.same.value:.1%} of {one.same.of} tracks ({low:.1%} to"
        f" {high:.1%}){gap}"
    )


def _shown(figure: Figure) -> tuple[str, str]:
    return f"{figure.value:.1%}", f"{figure.low:.1%} to {figure.high:.1%}"


def _plain(figure: Figure) -> tuple[str, str]:
    return f"{figure.value:.3f}", f"{figure.low:.3f} to {figure.high:.3f}"
