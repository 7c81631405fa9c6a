"""From a bundle and tracks to a bundle with a certificate: draw, hear, choose, test, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edge_reclass import Bundle, __version__
from edge_reclass.bundle import CertificateEntry, CountEntry, Manifest, digests, graph_digests, load
from edge_reclass.cascade import Policy, choose_policy, policy_entry
from edge_reclass.errors import UsageError
from edge_reclass.run import printable
from edge_reclass_export.bundle_files import bundle_name
from edge_reclass_export.own_genres import same_genres
from edge_reclass_learn.answers import Answers
from edge_reclass_learn.calibrate import certify
from edge_reclass_learn.calibrate.certify import Goal, Tested
from edge_reclass_learn.calibrate.hearing import Counted, hear
from edge_reclass_learn.calibrate.paths import LEVELS, counts_at, from_level
from edge_reclass_learn.calibrate.tracks import Drawn, choosing, drawn, kept, read
from edge_reclass_learn.calibrate.writing import check_place, write_bundle
from edge_reclass_learn.data.labelled import Labelled
from edge_reclass_learn.fit.policies import patient
from edge_reclass_learn.hearing.hear import sound_digest
from edge_reclass_learn.hearing.memory import unknown_sounds
from edge_reclass_learn.hearing.recording import asking
from edge_reclass_learn.ladders import Bools, Ints
from edge_reclass_learn.progress import Say
from edge_reclass_learn.replaying import NOTHING, Replay, everything, replay

ASSUMES = (
    "the tracks come from what the counted ones were drawn from (exchangeable)",
    "one track of each artist or album was counted",
    "decoded and heard by the same program",
)
KNOWN = "the heads answer new tracks as they answer those that they were fitted on"


@dataclass(frozen=True)
class Options:
    """How to count.

    goal: what is certified
    policy: name of a policy; None: the default one
    windows: after how many windows stages may be asked, beside those of the bundle's policies
    limit: most artists
    """

    cache: Path
    goal: Goal
    policy: str | None = None
    windows: tuple[int, ...] = (1, 3)
    seed: int = 0
    limit: int | None = None
    device: str = "cpu"
    engines: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What was found, for the screen.

    counted: the tracks. choosing: bool[tracks], the others were tested with. before, now, full: what the policy said
    before, says now, and what all stages say; None where it was not heard. level: the least confidence that was
    certified, None where a policy was.
    """

    goal: Goal
    counted: Counted
    choosing: Bools
    truth: Ints
    full: Replay | None
    before: Replay | None
    now: Replay
    tested: Tested
    policy: Policy
    manifest: Manifest
    level: float | None = None


def calibrate(bundle: Path, data: Path, output: Path, options: Options, say: Say) -> Outcome:
    """Certify a policy's thresholds, or the least confidence, and write ``output``, all at once at the end.

    Raises:
        UsageError: the data or the output folder cannot be used; too few tracks; nothing can be certified.
        BundleError, EngineError, DeviceError: the bundle cannot be used.
    """
    there = check_place(output)
    base = load(bundle)
    base.verify()
    policy = choose_policy(base, options.policy)
    if policy.name not in base.manifest.policies:
        raise UsageError(
            f"--policy {policy.name}: expected a policy of the bundle, {', '.join(base.manifest.policies)}"
        )
    found = count(base, data, options, options.goal.risk, policy, say)
    for_choosing = np.array([choosing(one, options.seed) for one in found.tracks], np.bool_)
    goal, answers = options.goal, found.answers
    certify.require_enough(int((~for_choosing).sum()), goal, len(found.tracks))
    if not for_choosing.any():
        raise UsageError(
            f"{data}: all {len(found.tracks)} tracks fell into one part; give another --seed, or add tracks"
        )
    truth = certify.truths(answers, policy, labels_of(found, base), goal.risk)
    say("searching")
    full = None if goal.risk == "error_if_sure" else replay(answers, everything(policy))
    before = None if full is not None and heard_in_part(answers, policy) else replay(answers, policy)
    if full is None:
        level, tested = _level(answers, policy, truth, for_choosing, goal)
        after = msgspec.structs.replace(base.manifest, min_confidence=level, certificates=[])
        now_policy, now = policy, replay(msgspec.structs.replace(answers, min_confidence=level), policy)
    else:
        rungs, level = certify.rungs(answers, policy, truth, goal.risk, for_choosing), None
        chosen = certify.certify_policy(rungs, policy.name, for_choosing, goal)
        if chosen is None:
            wrong = mistakes(full.genre, truth, goal)
            what = "even all stages with all of their windows make too many mistakes"
            raise certify.refusal(int((wrong & ~for_choosing).sum()), int((~for_choosing).sum()), goal, what)
        now_policy, tested, now = chosen.policy, chosen.tested, replay(answers, chosen.policy)
        others = [one for one in base.manifest.certificates if one.policy != policy.name]
        policies = {**base.manifest.policies, policy.name: policy_entry(now_policy)}
        after = msgspec.structs.replace(base.manifest, policies=policies, certificates=others)
    for one in base.manifest.certificates:
        if one not in after.certificates:
            say(f"warning: the new bundle is without the certificate of {one.policy} ({one.risk})")
    assumes = [*ASSUMES, *([KNOWN] if found.known else [])]
    unsure = int(((now.genre == NOTHING) & ~for_choosing).sum())
    count_entry = counted_entry(after, found, tested, options.seed, unsure, for_choosing)
    chosen_on = [one for one, chooses in zip(found.tracks, for_choosing, strict=True) if chooses]
    entry = certificate(after, now_policy.name, goal, assumes, chosen_on, count_entry)
    after = msgspec.structs.replace(after, name=bundle_name(output), certificates=[*after.certificates, entry])
    say("writing the bundle")
    write_bundle(output, there, base, after)
    return Outcome(goal, found, for_choosing, truth, full, before, now, tested, now_policy, after, level)


def heard_in_part(answers: Answers, policy: Policy) -> bool:
    """Whether the head of a stage takes one of which ``policy`` does not hear all windows.

    With all of them that head says something else than in the policy, so the record cannot tell what the policy says.
    """
    return any(not policy.hears_all(need) for name in policy.stages for need in answers.facts(name).needs)


def count(base: Bundle, data: Path, options: Options, risk: certify.Risk, policy: Policy, say: Say) -> Counted:
    """Draw one track of each artist in ``data``, and hear it.

    Every stage is heard at every step that may be chosen; for the least confidence, as ``policy`` hears it.

    Raises:
        UsageError: as :func:`calibrate`; or the heads were fitted on some of the tracks, and the risk is of errors.
    """
    with_labels = risk != "disagreement"
    found = read(data, base, labelled=with_labels)
    for note in found.notes:
        say(note)
    tracks = drawn(_with_sounds(found.tracks, say), options.seed, options.limit)
    if len(tracks) < len(found.tracks):
        say(f"kept: {len(tracks)} of {len(found.tracks)} tracks, one of each artist or album")
    if with_labels and (lone := sum(not one.track.belongs for one in tracks)):
        say(f"warning: {lone} tracks have no artist; each counts as one of its own")
    steps = {step.windows for entry in base.manifest.policies.values() for step in entry.steps}
    counts = sorted({*options.windows, *(n for n in steps if isinstance(n, int))})
    asked = patient(policy) if risk == "error_if_sure" else asking(base, counts)
    counted = hear(base, tracks, asked, options.cache, options.device, options.engines, say)
    if counted.left_out:
        listed = ", ".join(f"{printable(one.track.path.name)} ({why})" for one, why in counted.left_out[:3])
        more = f" and {len(counted.left_out) - 3} more" if len(counted.left_out) > 3 else ""
        say(f"left out, because they cannot be heard: {listed}{more}")
    if counted.same:
        say(f"left out: {counted.same} tracks that seem to be the same recording as another one")
    if unknown := unknown_sounds(base):
        say(
            f"warning: {base.name} was fitted on {unknown} tracks without their audio: whether they are among these"
            " nobody can tell; leave them out of --data"
        )
    if counted.known:
        _known(counted, with_labels, say)
    return counted


def _with_sounds(tracks: Sequence[Labelled], say: Say) -> list[tuple[Labelled, bytes]]:
    """Each track with the digest of its sound, for which its file is read once, and not decoded."""
    found, bad = [], []
    for number, track in enumerate(tracks, start=1):
        say(f"reading {number} of {len(tracks)}: {printable(track.path.name)}")
        try:
            found.append((track, sound_digest(track.path)))
        except OSError:
            bad.append(printable(track.path.name))
    if bad:
        say(f"left out, because they cannot be read: {', '.join(bad[:3])}{' …' if len(bad) > 3 else ''} ({len(bad)})")
    return found


def _known(counted: Counted, with_labels: bool, say: Say) -> None:
    """Heads are surer, and more often right, of what they were fitted on."""
    names = ", ".join(printable(counted.tracks[i].track.path.name) for i in counted.known[:3])
    many = f"{len(counted.known)} of the {len(counted.tracks)} tracks"
    if with_labels:
        raise UsageError(
            f"at least {many} are among those that the heads were fitted on ({names}, …); on these they make fewer"
            " errors than on new ones, and the bundle remembers a part of them only. Give tracks that they have not"
            " heard, or certify --risk disagreement, or calibrate a bundle that was fitted on others"
        )
    say(
        f"warning: at least {many} are among those that the heads were fitted on, where they are surer: the certificate"
        " is for such tracks, and says so; new ones may differ more often"
    )


def labels_of(counted: Counted, base: Bundle) -> list[str]:
    """The label of each track, as the bundle spells it where it knows it."""
    known = same_genres(sorted({one.track.genre for one in counted.tracks}), base.manifest.genres)
    return [known.get(one.track.genre, one.track.genre) for one in counted.tracks]


def mistakes(genre: Ints, truth: Ints, goal: Goal) -> Bools:
    """Which tracks are mistakes: bool[tracks]."""
    different = np.asarray(genre != truth, np.bool_)
    return different if goal.risk == "disagreement" else different & (genre != NOTHING)


def _level(answers: Answers, policy: Policy, truth: Ints, for_choosing: Bools, goal: Goal) -> tuple[float, Tested]:
    wrong, sure = certify.at_levels(answers, policy, truth)
    tested = certify.certify_level(wrong, sure, for_choosing, goal)
    if tested is None:
        first = from_level(wrong, sure, for_choosing, goal.epsilon)
        mistaken, many = counts_at(wrong, sure, ~for_choosing)
        what = f"wrong among the sure ones at the least confidence {LEVELS[first]:g}, where the tests begin"
        raise certify.refusal(mistaken[first], many[first], goal, what)
    return LEVELS[tested.number], tested


def counted_entry(
    manifest: Manifest, found: Counted, tested: Tested, seed: int, unsure: int, for_choosing: Bools
) -> CountEntry:
    """The count, as the manifest has it."""
    return CountEntry(
        ran=found.ran,
        graphs=graph_digests(manifest, found.ran),
        tracks=tested.tracks,
        mistakes=tested.mistakes,
        p_value=float(f"{tested.p:.4g}"),
        tested=tested.tested,
        data_sha256=found.digest,
        seed=seed,
        program=f"edge-reclass {__version__}",
        unsure=unsure,
        known=sum(not for_choosing[i] for i in found.known),
    )


def certificate(
    manifest: Manifest, policy: str, goal: Goal, assumes: Sequence[str], chosen_on: Sequence[Drawn], count: CountEntry
) -> CertificateEntry:
    """The certificate of a policy of ``manifest``."""
    now = digests(manifest, policy)
    return CertificateEntry(
        policy=policy,
        risk=goal.risk,
        epsilon=goal.epsilon,
        delta=goal.delta,
        policy_sha256=now.policy,
        heads_sha256=now.heads,
        encoders_sha256=now.encoders,
        assumes=list(assumes),
        chosen_on=kept(chosen_on),
        counts=[count],
    )
