"""What stands on the screen while a track is reviewed, as lines of text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.text import Text

from edge_reclass.library.shown import shown

if TYPE_CHECKING:
    from edge_reclass.library.review.loop import Review
    from edge_reclass.verdict import StageReport, Verdict

SHORTCUTS: Final = 9
"""So many of the best genres have a digit as their key."""
_BAR: Final = 30
_STAGES: Final = 4


def draw(review: Review, columns: int, rows: int, utf8: bool) -> list[Text]:
    """The whole screen, at most ``rows`` lines; what does not fit between head and keys is left out."""
    keys = list(_keys(review, columns))
    if review.queue.track is None:
        body = list(_end(review))
    elif review.typed is not None:
        body = list(_choice(review, rows - len(keys) - 3))
    else:
        body = list(_track(review, columns, rows - len(keys) - 2, utf8))
    room = max(rows - len(keys) - 2, 0)
    body = body[:room] + [Text()] * (room - len(body))
    return [_head(review, columns), *body, Text(shown(review.said), style="bold"), *keys][-rows:]


def _head(review: Review, columns: int) -> Text:
    queue = review.queue
    left = f" {min(queue.position + 1, len(queue))} of {len(queue)}, {queue.decided} decided, {queue.skipped} skipped"
    state = shown(os.path.basename(review.state))  # noqa: PTH119 - a name that may be any bytes
    gap = max(columns - cell_len(left) - cell_len(state) - 1, 0)
    return Text(left + " " * gap + (f"{state} " if gap > 0 else ""), style="reverse")


def _track(review: Review, columns: int, rows: int, utf8: bool) -> Iterator[Text]:
    track, verdict = review.track, review.verdict
    if track is None:
        return
    path = shown(os.fsdecode(track.path))
    yield Text()
    yield Text(shown(review.name), style="bold")
    if (over := cell_len(path) - columns) > 0 and columns > 20:  # the end of a path tells most
        path = ("…" if utf8 else "~") + path[over + 1 :]
    yield Text(path, style="dim")
    if review.tags.genres:
        yield Text(f"its tag says: {shown(', '.join(review.tags.genres))}")
    if track.corrected is not None:
        yield Text(f"you said: {shown(track.corrected)}", style="bold")
    if verdict is None:
        return
    yield Text(f"{verdict.status}: {shown(verdict.reason or 'no reason is known')}", style="yellow")
    yield Text()
    scores = verdict.top[: min(SHORTCUTS, max(rows - 9 - min(len(verdict.stages), _STAGES), 3))]
    width = max((cell_len(shown(score.genre)) for score in scores), default=0)
    bar = min(_BAR, columns - width - 10)
    full, empty = ("━", "╌") if utf8 else ("#", ".")
    for number, score in enumerate(scores, 1):
        name = shown(score.genre)
        line = Text(f"{number} ", style="bold").append(name + " " * (width - cell_len(name)), style="not bold")
        if bar >= 5:
            filled = round(bar * min(max(score.score, 0.0), 1.0))
            line.append(" " + full * filled, style="cyan not bold").append(empty * (bar - filled), style="dim not bold")
        yield line.append(f" {score.score:.2f}", style="not bold")
    yield Text()
    for stage in verdict.stages[-_STAGES:]:
        yield _stage(stage)
    yield from _damage(verdict)


def _stage(stage: StageReport) -> Text:
    said = "silence" if stage.genre is None else f"{shown(stage.genre)} {stage.confidence:.2f}"
    line = Text(f"{shown(stage.name)}: {said}")
    if stage.outside:
        line.append(", unlike what it was fitted on", style="yellow")
    if stage.windows is not None and stage.windows.of > 1:
        line.append(f", {stage.windows.heard} of {stage.windows.of} windows", style="dim")
    end = stage.excerpt.start + stage.excerpt.seconds
    return line.append(f", heard {clock(stage.excerpt.start)} to {clock(end)}", style="dim")


def _damage(verdict: Verdict) -> Iterator[Text]:
    if (damage := verdict.damage) is not None:
        ends = "" if damage.declared is None else f", ends before its {damage.declared:.0f} s"
        yield Text(f"damaged: {damage.missing:.1%} of what was listened to is missing{ends}", style="yellow")
    if verdict.channel is not None:
        yield Text(f"channel {verdict.channel} was heard alone", style="yellow")


def _choice(review: Review, rows: int) -> Iterator[Text]:
    yield Text()
    yield Text("genre: ").append(shown(review.typed or ""), style="bold").append("_")
    found = review.matches
    if not found:
        yield Text(f"no genre begins like this; +{shown(review.typed or 'NAME')} is a new one", style="yellow")
        return
    rows = max(rows - 2, 1)
    first = max(0, min(review.marked - rows // 2, len(found) - rows))
    for number, genre in enumerate(found[first : first + rows], first):
        marked = number == review.marked
        yield Text(f"{'>' if marked else ' '} {shown(genre)}", style="reverse" if marked else "")


def _end(review: Review) -> Iterator[Text]:
    queue = review.queue
    yield Text()
    yield Text("That was the last one.", style="bold")
    yield Text(f"{queue.decided} decided, {queue.skipped} skipped. Every answer is kept already.")


def _keys(review: Review, columns: int) -> Iterator[Text]:
    """The keys that do something now, on as many lines as they need."""
    line = Text()
    for key, what in review.offered():
        what = shown(what)
        if line and cell_len(line.plain) + cell_len(key) + cell_len(what) + 4 > columns:
            yield line
            line = Text()
        line.append("   " if line else "").append(key, style="bold cyan").append(f" {what}")
    yield line


def clock(seconds: float) -> str:
    """``1:05``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
