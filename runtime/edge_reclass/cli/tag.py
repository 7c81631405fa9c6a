"""``edge-reclass tag``: write the genre into the files, and take it back."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from edge_reclass.cli.serving import writable
from edge_reclass.cli.stopping import say
from edge_reclass.cli.summary import counted
from edge_reclass.errors import UsageError
from edge_reclass.run.output import open_output
from edge_reclass.run.text import printable

if TYPE_CHECKING:
    from edge_reclass.library.journal import Journal
    from edge_reclass.library.state import State
    from edge_reclass.library.tags.plan import Candidate, Rules
    from edge_reclass.library.tags.session import Fate, Outcome, Session
    from edge_reclass.run.lanes import CascadePool
    from edge_reclass.run.output import Output
    from edge_reclass.run.sources import Track

SOME_REFUSED = 3


def tag(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            help="A state file, and paths if only the tracks there are meant; or a file of verdicts (classify -f "
            "jsonl); or audio files and folders, which are classified first.",
            metavar="STATE|VERDICTS|PATH...",
        ),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write. Without it, only what would change is shown.")] = False,
    fill: Annotated[bool, typer.Option("--fill", help="Only files without a genre. This is the default.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Other genres too; the first one is kept in the field ORIGINALGENRE.")
    ] = False,
    append: Annotated[bool, typer.Option("--append", help="Add ours behind the genres that are there.")] = False,
    min_confidence: Annotated[
        float, typer.Option(metavar="X", help="Write nothing below this confidence, 0 to 1.")
    ] = 0.0,
    top: Annotated[
        int, typer.Option(min=1, metavar="N", help="Write up to N genres, the surest first, each of a score of 0.1.")
    ] = 1,
    join: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help='Write several genres as one text with this between, such as "; ".'),
    ] = None,
    map: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names to write: lines as  Hip-Hop: Rap  in YAML; null: do not write it."),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where it is noted what undoes the writing. [default: the state]"),
    ] = None,
    keep_mtime: Annotated[
        bool, typer.Option("--keep-mtime", help="Leave the files' times; servers that go by them will see no change.")
    ] = False,
    hard_links: Annotated[
        str,
        typer.Option(metavar="HOW", help="skip | break: what to do with a file that has several names."),
    ] = "skip",
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was written, byte for byte.")] = False,
    run: Annotated[int | None, typer.Option(metavar="ID", help="With --undo: only this run; see --runs.")] = None,
    runs: Annotated[bool, typer.Option("--runs", help="List the runs that were written.")] = False,
    apply_approved: Annotated[
        bool,
        typer.Option("--apply-approved", help="Write the tag plans that were approved over the service, as they were."),
    ] = False,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="To classify with. [default: the starter bundle]")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="To classify on, as in classify.")] = "auto",
    policy: Annotated[str | None, typer.Option(metavar="NAME", help="To classify with, as in classify.")] = None,
) -> None:
    """Write the genres of tracks into their files, changing nothing else, or show what would be written.

    Without --write, nothing is written. Each file is copied, tagged, read again and compared before it takes the old
    one's place; a file of which anything else would change is refused. What was written can be taken back, byte for
    byte. Tracks that are unsure get nothing; what a person said in a review wins.

    Exit codes: 0 all well, also where there was nothing to write; 2 wrong usage; 3 some files were refused; and those
    of classify.
    """
    from edge_reclass.library.journal import Journal
    from edge_reclass.library.state import State
    from edge_reclass.library.tags.names import read_map, separators_in
    from edge_reclass.library.tags.plan import Rules
    from edge_reclass.library.tags.reading import import_mutagen
    from edge_reclass.library.tags.session import Session

    given = sources or []
    if sum((fill, replace, append)) > 1:
        raise UsageError("expected one of --fill, --replace and --append")
    if hard_links not in ("skip", "break"):
        raise UsageError(f"--hard-links: expected skip or break, got {hard_links!r}")
    if not 0 <= min_confidence <= 1:
        raise UsageError(f"--min-confidence: expected a number from 0 to 1, got {min_confidence:g}")
    if (undo or runs) and write:
        raise UsageError("--write and --undo or --runs: expected one of them")
    if run is not None and not undo:
        raise UsageError("--run ID goes with --undo")
    if join is not None and not join.isprintable():
        raise UsageError(f"--join: expected printable text, got {join!r}")
    if apply_approved:
        if len(given) != 1 or not _is_sqlite(given[0]) or write or undo or runs or fill or replace or append:
            raise UsageError("--apply-approved: expected one STATE, and no other option; a plan has its own")
        import_mutagen()
        if code := _apply_approved(given[0]):
            raise typer.Exit(code)
        return
    import_mutagen()
    names = {} if map is None else read_map(map)
    if (warning := separators_in(names)) is not None:
        say(f"warning: {warning}")
    rules = Rules("replace" if replace else "append" if append else "fill", min_confidence, top, join, names)
    with ExitStack() as stack:
        state: State | None = None
        if given and _is_sqlite(given[0]):
            if journal is not None:
                raise UsageError(f"--journal {journal}: {given[0]} has a journal of its own; leave out --journal")
            file = given.pop(0)
            state = stack.enter_context(writable(file) if write or undo else State.open(file))
        log: Journal | None = None
        if state is not None:
            log = Journal.of_state(state)
        elif journal is not None and (write or undo or runs or journal.exists()):
            log = stack.enter_context(Journal.open(journal, create=write))
        if undo or runs:
            if log is None or given:
                raise UsageError(
                    "--undo and --runs: expected the STATE that was written from, or --journal FILE, and no other path"
                )
            with open_output(None) as out:
                code = _undo(log, run, out) if undo else _list(log, out)
        else:
            if write and log is None:
                raise UsageError("--write: expected --journal FILE, where what undoes it is kept (a STATE has its own)")
            with open_output(None) as out:
                listed = _listed(given, state, bundle, device, policy)
                session = Session(
                    rules,
                    listed.roots,
                    state=state,
                    rows=listed.rows,
                    journal=log,
                    break_links=hard_links == "break",
                    keep_mtime=keep_mtime,
                )
                code = _tag(listed.candidates, session, log if write else None, out)
                _warn(rules, session)
    if code:
        raise typer.Exit(code)


class _Listed(NamedTuple):
    candidates: Iterable[Candidate]
    roots: list[Path]
    rows: list[tuple[Path, int]]


def _listed(given: list[Path], state: State | None, bundle: Path | None, device: str, policy: str | None) -> _Listed:
    """The candidates of a state, of files of verdicts, or of paths that are classified as they come."""
    from edge_reclass.library.tags.plan import candidates, named, of_state, of_verdicts

    if state is not None:
        rows = of_state(state, given)
        if not rows:
            where = ", ".join(printable(str(path)) for path in given)
            raise UsageError(f"{state.path}: no tracks{f' in {where}' if given else ''}")
        return _Listed(candidates(state, rows), named(state, rows), rows)
    if not given:
        raise UsageError("expected a STATE, a file of verdicts, or a PATH")
    if any(map(_is_sqlite, given)):
        raise UsageError("expected one STATE, in front of the paths")
    if all(path.suffix.lower() in (".json", ".jsonl") for path in given):
        listed = [candidate for path in given for candidate in of_verdicts(path)]
        if not listed:
            raise UsageError(f"{', '.join(printable(str(path)) for path in given)}: no verdicts")
        return _Listed(listed, _folders([one.path for one in listed]), [])
    return _Listed(_classified(given, bundle, device, policy), given, [])


def _folders(paths: list[Path]) -> list[Path]:
    return list({Path(os.path.abspath(path)).parent for path in paths})  # noqa: PTH100


def _classified(given: list[Path], bundle: Path | None, device: str, policy: str | None) -> Iterator[Candidate]:
    from edge_reclass.cli.summary import skipped
    from edge_reclass.run.lanes import CascadePool
    from edge_reclass.run.sources import TrackSearch

    search = TrackSearch(given)
    tracks = list(search)
    for folder, reason in search.problems:
        say(f"warning: {printable(str(folder))}: cannot be searched: {reason}")
    if not tracks:
        places = ", ".join(printable(str(path)) for path in given)
        raise UsageError(f"no audio found in {places}{skipped(search)}")
    return _verdicts(CascadePool.open(None, bundle, device, policy), tracks)


def _verdicts(pool: CascadePool, tracks: list[Track]) -> Iterator[Candidate]:
    from edge_reclass.library.tags.plan import Candidate

    with pool:
        yield from map(Candidate.of, pool.classify_many(tracks))


def _tag(candidates: Iterable[Candidate], session: Session, log: Journal | None, out: Output) -> int:
    """Show what changes, and write it where there is a ``log``; the exit code."""
    from edge_reclass.library.tags.session import Fate
    from edge_reclass.library.tags.writing import recover

    for step in () if log is None else recover(log):
        say(printable(f"warning: {step.path}: a crash left open whether run {step.run} wrote it; see --undo"))
    counts: Counter[Fate] = Counter()
    failed = False
    try:
        for candidate in candidates:
            outcome = session.decide(candidate)
            if outcome.fate == Fate.CHANGE and log is not None:
                outcome = session.write(outcome)
            counts[outcome.fate] += 1
            failed = failed or (candidate.verdict is not None and candidate.verdict.failed)
            if outcome.fate == Fate.CHANGE:
                out(_diff(outcome))
            elif outcome.reason is not None:
                say(printable(f"{candidate.path}: {outcome.fate}: {outcome.reason}"))
    finally:
        if log is not None:
            recover(log)
        _summarise(counts, session, log)
    return SOME_REFUSED if counts[Fate.REFUSED] or failed else 0


def _summarise(counts: Counter[Fate], session: Session, log: Journal | None) -> None:
    from edge_reclass.library.tags.session import Fate

    parts = [f"{counted(counts[Fate.CHANGE], 'file')} {'would be written' if log is None else 'written'}"]
    words = {
        Fate.SAME: "have a genre" if session.rules.mode == "fill" else "need no change",
        Fate.UNSURE: "without a sure genre",
        Fate.TWICE: "named twice",
        Fate.LINKED: "skipped, hard-linked (--hard-links break)",
        Fate.REFUSED: "refused",
    }
    parts += [f"{counts[fate]} {words[fate]}" for fate in words if counts[fate]]
    hint = ""
    if log is None and counts[Fate.CHANGE]:
        hint = "; --write writes them"
    elif log is not None and session.run is not None:
        where = log.path if log.state is not None else f"--journal {log.path}"
        hint = f"; to take it back: edge-reclass tag {where} --undo --run {session.run}"
    say(printable(", ".join(parts) + hint))


def _diff(outcome: Outcome) -> str:
    found, change, candidate = outcome.found, outcome.change, outcome.candidate
    if found is None or change is None:
        return ""
    verdict = candidate.verdict
    sure = (
        "  corrected"
        if candidate.corrected is not None
        else ""
        if verdict is None or verdict.confidence is None
        else f"  {verdict.confidence:.2f}"
    )
    lines = [printable(str(candidate.path))]
    for place in found.inventory.places:
        new = place.after(change)
        if place.genres != new and (place.genres or place is found.inventory.places[0]):
            lines.append(f"    {place.name}: {_names(place.genres)} → {_names(new)}{sure}")
            sure = ""
    if change.original and not found.inventory.original:
        lines.append(f"    original genre: {_names(change.original)}")
    return "\n".join(lines) + "\n"


def _names(genres: tuple[str, ...]) -> str:
    return printable(" + ".join(genres)) or "none"


def _warn(rules: Rules, session: Session) -> None:
    from edge_reclass.library.tags.names import separators_in

    if rules.join is None and not rules.names and (warning := separators_in(iter(session.names))) is not None:
        say(f"warning: {warning}")
    if unused := sorted(set(rules.names) - session.genres):
        say(printable(f"note: --map names {', '.join(unused)}, which no track here has"))


def _undo(log: Journal, run: int | None, out: Output) -> int:
    from edge_reclass.library.tags.content import Refused
    from edge_reclass.library.tags.writing import COMMAND, recover, take_back

    steps = [step for step in recover(log) if run in (None, step.run)] + log.to_undo(COMMAND, run)
    undone = refused = 0
    # A run of its own: one of which a step is left does not count as undone. It goes when the folders are tidied.
    log.watch(log.begin(COMMAND), {step.path.parent for step in steps})
    for step in sorted(steps, key=lambda step: -step.id):
        try:
            take_back(log, step)
        except Refused as error:
            refused += 1
            say(printable(f"{step.path}: refused: {error}"))
        else:
            undone += 1
            out(printable(f"{step.path}: as before run {step.run}") + "\n")
    log.tidy(COMMAND)
    say(f"{counted(undone, 'file')} taken back" + (f", {refused} refused" if refused else ""))
    return SOME_REFUSED if refused else 0


def _apply_approved(file: Path) -> int:
    """Carry out the plans of a state that were approved, oldest first; the exit code."""
    from edge_reclass.library.tags.approved import TagPlans

    refused = 0
    with writable(file) as state:
        plans = TagPlans(state)
        approved = plans.plans(status="approved")
        if not approved:
            say(printable(f"{file}: no tag plan is approved"))
        for plan in reversed(approved):
            done = plans.carry_out(plan.id)
            refused += len(done.left)
            for path, reason in done.left.items():
                say(printable(f"{path}: left as it is: {reason}"))
            said = f"plan {plan.id}: {counted(done.written, 'file')} written"
            if done.left:
                said += f", {len(done.left)} left as they were"
            if (run := plans.plans(number=plan.id)[0].run) is not None:
                said += f"; to take it back: edge-reclass tag {file} --undo --run {run}"
            say(printable(said))
    return SOME_REFUSED if refused else 0


def _list(log: Journal, out: Output) -> int:
    from edge_reclass.library.tags.writing import COMMAND

    for run in log.runs(COMMAND):
        what = counted(run.files, "file") if run.undone_at is None else f"taken back {run.undone_at}"
        out(f"{run.id:>4}  {run.at}  {what}\n")
    return 0


def _is_sqlite(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except (OSError, ValueError):
        return False
