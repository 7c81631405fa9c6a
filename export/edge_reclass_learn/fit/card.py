"""The figures of a fit, for people: as the bundle's README, and as lines on the screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edge_reclass.run import printable
from edge_reclass_export.engine.report import table as columns
from edge_reclass_learn.fit.gain import SURE, Gain
from edge_reclass_learn.fit.outcome import Outcome

SHOWN = 10
"""Most tracks and pairs that are shown."""


def card(found: Outcome) -> str:
    """The README of the bundle: what it was fitted on, and how good it is. It names no track."""
    default = next(iter(found.policies.values()))
    accuracy, patient = found.accuracies[default.name]
    old, right = found.old
    lines = [
        "# A bundle made by `edge-reclass fit`",
        "",
        f"Fitted on {found.tracks} tracks, with the encoders of the bundle `{found.base.name}`"
        f" (`{found.base.digest[:12]}`). Its heads may be used as the music allows that they were fitted on.",
        "",
        *_markdown(("genre", "tracks", "groups", "found"), _genre_rows(found)),
        "",
        "A group is what may not be on both sides of a judgement: an artist, an album, a recording. `found`: out of"
        f" fold, under the policy `{default.name}`.",
        "",
        *_markdown(("out of fold, every track gets a genre", "accuracy"), _accuracy_rows(found)),
        "",
        f"Without early exits `{default.name}` finds {patient:.1%}. The mean over the genres is {found.balanced:.1%}."
        f" {found.unsure} of {found.tracks} tracks are unsure."
        " The thresholds and temperatures were chosen on the same answers. Music from other sources than these"
        f" tracks will fare worse than {accuracy:.1%}.",
        "",
        *(_markdown(("without listening", "accuracy"), _rule_rows(found)) if found.without_listening else ()),
    ]
    if old:
        lines += [
            "",
            f"Beside these tracks it was fitted on {old} that the base remembers, of which {right} are found.",
        ]
    lines += ["", *(f"- {warning}" for warning in found.warnings)] if found.warnings else []
    return "\n".join(lines).rstrip() + "\n"


def screen(found: Outcome, min_gain: float) -> Iterator[str]:
    """What a user is told at the end."""
    default = next(iter(found.policies.values()))
    yield columns(("genre", "tracks", "groups", "found"), [list(map(str, row)) for row in _genre_rows(found)])
    yield ""
    rows = [*_accuracy_rows(found), *((f"without listening: {name}", share) for name, share in _rule_rows(found))]
    yield columns(("out of fold, every track gets a genre", "accuracy"), [list(map(str, row)) for row in rows])
    for one in found.contests:
        won = f"{one.kind} is the head" if one.taken else "the head is logistic"
        points, p = one.gain.points, one.gain.p
        yield f"stage {one.stage}: {one.kind} against logistic {points:+.1f} points, McNemar p = {p:.2g}: {won}"
    yield f"mean over the genres: {found.balanced:.1%}; unsure: {found.unsure} of {found.tracks}"
    yield f"decided by: {', '.join(f'{stage} {n}' for stage, n in found.exits.items())}"
    for name, policy in found.policies.items():
        before = found.task.heard.policies[name]
        changed = [
            f"{step.accept:g}" if step.accept == old.accept else f"{old.accept:g} → {step.accept:g}"
            for step, old in zip(policy.steps[:-1], before.steps[:-1], strict=True)
            if step.accept is not None and old.accept is not None
        ]
        if any("→" in one for one in changed):
            yield f"accept of {name}, chosen again: {', '.join(changed)}"
    old, right = found.old
    if old:
        yield f"of {old} tracks that {found.base.name} remembers, {right} are found out of fold ({right / old:.1%})"
    yield _said_of(found.gain, found.base.name, default.name, min_gain)
    if found.gain is not None and found.read.in_base:
        yield (
            f"warning: at least {len(found.read.in_base)} of the tracks are among those that {found.base.name} was"
            " fitted on: it finds too many of them for a fair comparison"
        )
    for lost in found.read.left_out[:SHOWN]:
        yield f"left out, {lost.why}: {printable(str(lost.track.path))}"
    if (more := len(found.read.left_out) - SHOWN) > 0:
        yield f"left out: {more} more"
    if found.read.pairs:
        yield f"{len(found.read.pairs)} pairs of tracks seem to be the same recording, and are kept in one fold:"
        for first, second, pair in found.read.pairs[:SHOWN]:
            other = "" if first.genre == second.genre else printable(f", as {first.genre} and {second.genre}")
            yield f"  {pair.cosine:.3f}  {printable(first.name)} | {printable(second.name)}{other}"
    yield from found.warnings
    suspects = [one for one in found.doubts if one.said != one.example.genre][:SHOWN]
    if suspects:
        yield "labels that look most wrong (--doubts FILE.csv lists all tracks):"
        for doubt in suspects:
            yield (
                f"  {printable(doubt.example.name)}: {printable(doubt.example.genre)}, sounds like"
                f" {printable(doubt.said)} {doubt.confidence:.2f}"
            )


def _said_of(gain: Gain | None, base: str, policy: str, min_gain: float) -> str:
    if gain is None:
        return f"no genre in common with {base}, or no head in it for such vectors: nothing to compare with it"
    told = (
        f"{base} finds {gain.base} of the {gain.tracks} tracks whose genre it knows, the new bundle finds {gain.new}"
        f" out of fold ({gain.points:+.1f} points; only one of the two is right: {gain.only_base} and {gain.only_new};"
        f" McNemar p = {gain.p:.2g}; policy {policy})"
    )
    if gain.points < min_gain or gain.p >= SURE:
        return f"{told}\nwarning: a gain of {max(min_gain, 0.0):g} points over {base} is not shown"
    return told


def _genre_rows(found: Outcome) -> Iterator[tuple[str, int, int, str]]:
    for genre, (tracks, groups, right) in found.genres.items():
        if tracks:
            yield printable(genre), tracks, groups, f"{right / tracks:.1%}"


def _accuracy_rows(found: Outcome) -> Iterator[tuple[str, str]]:
    for stage, accuracy in found.stages.items():
        yield f"stage {stage} alone", f"{accuracy:.1%}"
    for one in found.contests:
        yield f"stage {one.stage} alone, logistic head", f"{one.gain.base / one.gain.tracks:.1%}"
        yield f"stage {one.stage} alone, {one.kind}", f"{one.gain.new / one.gain.tracks:.1%}"
    for policy, (accuracy, _) in found.accuracies.items():
        yield f"policy {policy}", f"{accuracy:.1%}"


def _rule_rows(found: Outcome) -> Iterator[tuple[str, str]]:
    for rule in found.without_listening:
        yield rule.name, f"{rule.accuracy:.1%}"


def _markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines]
