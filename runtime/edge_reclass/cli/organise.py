"""``edge-reclass organise``: show where the tracks of a state file would go, bring them there, or take it back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.cli.serving import writable
from edge_reclass.cli.stopping import say
from edge_reclass.cli.summary import counted
from edge_reclass.errors import UsageError
from edge_reclass.run.output import open_output
from edge_reclass.run.text import printable

if TYPE_CHECKING:
    from edge_reclass.library.organise.carry_out import Outcome
    from edge_reclass.library.organise.plan import By, Plan, Wishes
    from edge_reclass.library.state import State

SOME_FAILED = 3
_SHOWN = 5


def organise(
    state: Annotated[Path, typer.Argument(help="A state file, made by classify --state.", metavar="STATE")],
    target: Annotated[
        Path | None, typer.Argument(help="The folder to bring the tracks into.", metavar="TARGET")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="The path of a track in TARGET, each field in braces: genre, artist, album, track, title, name,"
            " ext. [default: genre/artist/album/track title.ext]",
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="link (a second name, no room), reflink (shared blocks: btrfs, xfs), copy, or move.",
        ),
    ] = "link",
    write: Annotated[bool, typer.Option("--write", help="Do it; without this, the plan is only shown.")] = False,
    unsure: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Put tracks without a sure genre into this folder, in the place of a genre. [default: leave them out]",
        ),
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(metavar="X", help="Genres below this confidence, 0 to 1, are not sure.")
    ] = 0.0,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take back what was done, newest first; what has changed since stays.")
    ] = False,
    run: Annotated[int | None, typer.Option(metavar="ID", help="With --undo: only this run.")] = None,
) -> None:
    """Bring the tracks of a state file into folders by genre: plan first, --write does it, --undo takes it back.

    A correction wins over a verdict. Nothing is ever overwritten, and nothing leaves TARGET.

    Exit codes: 0 done, or nothing to do; 2 wrong usage; 3 some tracks could not be brought, or not be taken back.
    """
    from edge_reclass.library.journal import Journal
    from edge_reclass.library.organise import carry_out
    from edge_reclass.library.organise.noted import COMMAND
    from edge_reclass.library.organise.plan import By, Wishes
    from edge_reclass.library.organise.template import DEFAULT, Template
    from edge_reclass.library.state import State

    if undo:
        if target is not None or write:
            raise UsageError("--undo takes no TARGET and no --write: it takes back at once what the journal holds")
        with writable(state) as opened:
            settled = _settle(opened)
            _report_undone(carry_out.undo(opened, run), settled)
        return
    if run is not None:
        raise UsageError("--run goes with --undo")
    if target is None:
        raise UsageError("expected a TARGET folder, as in  edge-reclass organise STATE TARGET")
    if by not in list(By):
        raise UsageError(f"--by: expected one of {', '.join(By)}, got {by!r}")
    if not 0 <= min_confidence <= 1:
        raise UsageError(f"--min-confidence: expected a number from 0 to 1, got {min_confidence:g}")
    wishes = Wishes(By(by), Template(DEFAULT if template is None else template), unsure, min_confidence)
    root = _root(target)
    with writable(state) if write else State.open(state) as opened:
        settled = True
        if write:
            settled = _settle(opened)
        elif number := len(Journal.of_state(opened).unfinished(COMMAND)):
            say(f"an earlier run was cut off: {counted(number, 'track')} that it had begun with; --write settles them")
        plan = _plan(opened, root, wishes)
        if not write:
            with open_output(None) as out:
                for line in _lines(plan, wishes.by):
                    out(line + "\n")
            _summarise(plan, wishes.by)
            if plan.steps:
                say("nothing was touched; --write does it")
            failed = bool(plan.problems)
        else:
            _summarise(plan, wishes.by)
            outcome = carry_out.carry_out(opened, plan)
            failed = _report(outcome, state) or bool(plan.problems) or not settled
    if failed:
        raise typer.Exit(SOME_FAILED)


def _root(target: Path) -> Path:
    from edge_reclass.library.state import absolute

    root = Path(absolute(os.path.realpath(target)))
    if root.exists() and not root.is_dir():
        raise UsageError(f"{target}: expected a folder, got a file; name a folder")
    if not root.parent.is_dir():
        raise UsageError(f"{target}: there is no folder {root.parent} to make it in")
    return root


def _plan(state: State, root: Path, wishes: Wishes) -> Plan:
    from edge_reclass.library.organise.carry_out import made_by
    from edge_reclass.library.organise.plan import make_plan
    from edge_reclass.library.tags import read

    return make_plan(state.tracks(), root, wishes, read if wishes.template.needs_tags else None, made_by(state))


def _settle(state: State) -> bool:
    """False where something of an earlier run stays open."""
    from edge_reclass.library.organise.carry_out import recover

    outcome = recover(state)
    _warn(outcome.failed)
    if number := outcome.done.total():
        say(f"an earlier run was cut off: {counted(number, 'track')} that it had begun with settled first")
    return not outcome.failed


def _lines(plan: Plan, by: By) -> Iterator[str]:
    """The plan as a tree: each folder, and in it what comes from where."""
    folder = None
    for step in sorted(plan.steps, key=lambda step: step.target):
        if step.target.parent != folder:
            folder = step.target.parent
            yield f"{printable(str(folder))}/"
        how = "" if step.by is by else f" ({step.by})"
        yield f"    {printable(step.target.name)}  <-{how} {printable(str(step.source))}"


def _summarise(plan: Plan, by: By) -> None:
    folders = len({step.target.parent for step in plan.steps})
    parts = [f"{counted(len(plan.steps), 'track')} to {by} into {counted(folders, 'folder')}"]
    if plan.in_place:
        parts.append(f"{plan.in_place} in place already")
    parts += [f"{number} left out: {reason}" for reason, number in plan.left_out.most_common()]
    say("; ".join(parts))
    _warn(plan.problems)


def _warn(problems: Iterable[tuple[Path, str]]) -> None:
    """What went wrong, the first few of each kind."""
    kinds: dict[str, list[Path]] = {}
    for path, reason in problems:
        kinds.setdefault(reason, []).append(path)
    for reason, paths in kinds.items():
        for path in paths[:_SHOWN]:
            say(f"warning: {printable(str(path))}: {printable(reason)}")
        if len(paths) > _SHOWN:
            say(f"warning: … and {len(paths) - _SHOWN} more: {printable(reason)}")


def _report(outcome: Outcome, state: Path) -> bool:
    _warn(outcome.failed)
    if outcome.done:
        done = ", ".join(f"{number} by {by}" for by, number in outcome.done.items())
        say(f"run {outcome.run}: {done}; take it back with  edge-reclass organise {state} --undo --run {outcome.run}")
    return bool(outcome.failed)


def _report_undone(outcome: Outcome, settled: bool) -> None:
    _warn(outcome.failed)
    total = outcome.done.total()
    say(f"{counted(total, 'track')} taken back" if total or outcome.failed else "nothing to take back")
    if outcome.failed or not settled:
        raise typer.Exit(SOME_FAILED)
