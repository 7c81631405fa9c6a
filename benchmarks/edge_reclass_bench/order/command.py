"""``edge-reclass bench order``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_reclass.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_reclass.bundle import Bundle, Manifest
    from edge_reclass.cascade import Policy


def order(
    bundle: Annotated[Path, typer.Argument(help="Bundle directory; starter is the embedded one.", metavar="BUNDLE")],
    paths: Annotated[
        list[str], typer.Argument(help="Audio files, and folders that are searched for them.", metavar="AUDIO...")
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns path (or file) and genre (or label, top_genre); group, if known."),
    ] = None,
    agreement: Annotated[
        float | None, typer.Option(help="Least share of tracks with the full answer's verdict. [default: 0.975]")
    ] = None,
    accuracy: Annotated[
        float | None, typer.Option(help="Instead: least share of labelled tracks that get their label.")
    ] = None,
    windows: Annotated[str, typer.Option(help="After how many windows stages may be asked before all.")] = "1,3",
    answers: Annotated[
        Path | None,
        typer.Option(
            help="Keep what the stages say in this file; where it is there, hear nothing.", metavar="FILE.json"
        ),
    ] = None,
    policy_name: Annotated[str, typer.Option(help="Name of the policy.")] = "proposed",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the policy, as in a manifest.", metavar="POLICY.json")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="Write a copy of the bundle's manifest that has the policy.", metavar="MANIFEST.yaml"),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, tensorrt or auto.")] = "cpu",
    engines: Annotated[Path | None, typer.Option(help="Folder of the engines. [default: as classify]")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take this many tracks, evenly spread over those found.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Choose on all folds but one, judge on that.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Deal the tracks to folds so many times.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the deals.")] = 20_070_518,
) -> None:
    """Propose a policy: the order of stages, windows and thresholds of least expected cost.

    Every stage hears every track once, and is asked after each number of windows; that is timed. Then all orders are
    searched for the cheapest policy that is good enough, and judged on tracks that it was not chosen on. The full
    answer is that of the policy thorough, or else of the default policy without an exit.

    Exit codes: 0 proposed, 2 wrong usage, no audio found, too few tracks, or what is wanted is not reached, 4 the
    bundle is invalid, 5 the device cannot be used.
    """
    from edge_reclass.cascade import choose_policy, load_bundle
    from edge_reclass.run import refuse_inputs
    from edge_reclass_bench.cli import reporter, show, whole
    from edge_reclass_bench.order import hearing, tables
    from edge_reclass_bench.tracks import find
    from edge_reclass_learn import Goal, everything, judged, propose, replay
    from edge_reclass_learn import answers as records
    from edge_reclass_learn.hearing.recording import asking
    from edge_reclass_learn.proposal import deal

    if agreement is not None and accuracy is not None:
        raise UsageError("--agreement and --accuracy: expected one of them, got both")
    goal = Goal(0.975 if agreement is None else agreement) if accuracy is None else Goal(accuracy, "accuracy")
    if goal.of == "accuracy" and labels is None:
        raise UsageError("--accuracy: needs --labels")
    loaded = load_bundle(None if str(bundle) == "starter" and not bundle.is_dir() else bundle)
    own = loaded.manifest.policies
    if policy_name in own:
        raise UsageError(f"--policy-name: the bundle has {', '.join(own)}; expected another name, got {policy_name!r}")
    default = choose_policy(loaded)
    full = choose_policy(loaded, "thorough") if "thorough" in own else default
    # Before an hour of listening, not after it.
    _with_policy(loaded, everything(full), policy_name)
    counts = {step.windows for policy in (default, full) for step in policy.steps if step.windows is not None}
    asked = asking(loaded, [*whole(windows, "--windows"), *counts])
    tracks, tell = find(paths, limit), reporter()
    for place in filter(None, (answers, output, write)):
        if place.is_dir() or not place.parent.is_dir():
            raise UsageError(f"{place}: expected a file in a folder that is there")
        refuse_inputs(place, None, [*tracks.paths, *filter(None, [labels])])
    if len(places := [p.resolve() for p in (answers, output, write) if p is not None]) != len(set(places)):
        raise UsageError("--answers, --output and --write: expected different files")
    about = hearing.known(loaded, tracks, labels, tell)
    deal([group for _, group in about], folds, repeats, seed)  # refuses too few
    if answers is not None and answers.exists():
        said = hearing.reuse(answers, loaded, tracks, about, asked, device)
    else:
        said = hearing.hear(loaded, tracks, about, asked, device, engines, tell)
        if answers is not None:
            records.save(said, answers)
            tell.say(f"answers: {answers}")
    tell.progress("searching")
    proposal = propose(said, full, goal, name=policy_name, folds=folds, repeats=repeats, seed=seed)
    tell.progress("")
    changed = _with_policy(loaded, proposal.policy, policy_name)
    reference = replay(said, everything(full))
    replays = {f"{default.name} (default)": replay(said, default), f"{full.name} (full answer)": reference}
    others = {name: judged(said, reference, one) for name, one in replays.items()}
    replays = {policy_name: replay(said, proposal.policy), **replays}
    show([tables.policies(said, proposal, others), tables.steps(said, proposal.policy, replays)])
    for line in tables.doubts(said, proposal, goal):
        tell.say(f"warning: {line}")
    _write(changed, policy_name, output, write, tell.say)


def _with_policy(bundle: Bundle, policy: Policy, name: str) -> Manifest:
    """The bundle's manifest with this policy, as the core reads it.

    Raises:
        UsageError: it does not fit the bundle, or is not what was meant when it is read again.
    """
    import tempfile

    import msgspec

    from edge_reclass.bundle import MANIFEST, load, manifest_text
    from edge_reclass.cascade import choose_policy, policy_entry
    from edge_reclass.errors import BundleError

    changed = msgspec.structs.replace(
        bundle.manifest, policies={**bundle.manifest.policies, name: policy_entry(policy)}
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST).write_text(manifest_text(changed), encoding="utf-8")
        try:
            read = choose_policy(load(folder), name)
        except BundleError as error:
            raise UsageError(f"--policy-name {name}: {str(error).replace(folder, str(bundle.root))}") from error
    if (read.vote, read.steps) != (policy.vote, policy.steps):
        raise UsageError(f"--policy-name {name}: the manifest's reader makes another policy of it: {read}")
    return changed


def _write(manifest: Manifest, name: str, output: Path | None, write: Path | None, say: Callable[[str], None]) -> None:
    import msgspec

    from edge_reclass.bundle import manifest_text
    from edge_reclass.host import write_whole

    if output is not None:
        write_whole(output, msgspec.json.format(msgspec.json.encode({name: manifest.policies[name]})) + b"\n")
        say(f"policy: {output}")
    if write is not None:
        write_whole(write, manifest_text(manifest).encode())
        say(f"manifest: {write}")
