"""Count a certificate again, with the thresholds as they are: on another device, or on other tracks.

The tracks that the thresholds were chosen on stay out, and so do all others of their artists. The certificate keeps
short digests of their sounds, so it knows them wherever they lie and whatever they are called. On what is left, all
candidates that were tested before, from the first one on, have to be certified here too. That holds for the same
tracks as well as for others: the order does not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from edge_reclass.bundle import (
    MANIFEST,
    CertificateEntry,
    CountEntry,
    Manifest,
    holding,
    load,
    manifest_text,
    void,
    where,
)
from edge_reclass.cascade import choose_policy
from edge_reclass.errors import UsageError
from edge_reclass.host import write_whole
from edge_reclass_learn.calibrate import certify
from edge_reclass_learn.calibrate.calibrating import Options, count, counted_entry, labels_of
from edge_reclass_learn.calibrate.certify import Goal
from edge_reclass_learn.calibrate.paths import LEVELS, choice_of, counts_at, shifted
from edge_reclass_learn.calibrate.tracks import was_chosen_on
from edge_reclass_learn.progress import Say
from edge_reclass_learn.replaying import NOTHING, replay


@dataclass(frozen=True)
class Checked:
    """What was counted on this device. ``added``: its precision was not in the certificate yet, and is now."""

    certificate: CertificateEntry
    count: CountEntry
    added: bool


def check(bundle: Path, data: Path, options: Options, risk: certify.Risk | None, say: Say) -> Checked:
    """Count a certificate of ``bundle`` again on a device; where it holds there, add that to the manifest.

    Raises:
        UsageError: there is no such certificate, it is void, or it is not certified here.
        BundleError, EngineError, DeviceError: the bundle cannot be used.
    """
    base = load(bundle)
    base.verify()
    found = _wanted(base.manifest, options.policy, risk)
    policy = choose_policy(base, found.policy)
    if why := void(base.manifest, found):
        raise UsageError(f"{bundle}: its certificate is void: {why}; edge-reclass calibrate makes a new one")
    goal, seed = Goal(found.risk, found.epsilon, found.delta), found.counts[0].seed
    counted = count(base, data, replace(options, goal=goal, seed=seed), goal.risk, policy, say)
    for_choosing = np.array([was_chosen_on(one, found.chosen_on) for one in counted.tracks], np.bool_)
    certify.require_enough(int((~for_choosing).sum()), goal, len(counted.tracks))
    answers = counted.answers
    truth = certify.truths(answers, policy, labels_of(counted, base), goal.risk)
    if goal.risk == "error_if_sure":
        first = _number_of(base.manifest.min_confidence) - found.counts[0].tested + 1
        if first < 0:
            raise UsageError(f"{bundle}: min_confidence and tested of the certificate do not fit together")
        wrong, sure = certify.at_levels(answers, policy, truth)
        last = first + found.counts[0].tested
        bad, many = counts_at(wrong[:last], sure[:last], ~for_choosing)
        what = [f"min_confidence {level:g}" for level in LEVELS[:last]]
    else:
        rungs = certify.rungs(answers, policy, truth, goal.risk)
        choice = choice_of(rungs, policy)
        if choice is None:
            raise UsageError(f"{bundle}: the thresholds of {policy.name} are not those of edge-reclass calibrate")
        policies = shifted(choice, range(-int(choice.max(initial=0)), 1))
        bad, many = certify.counts_on(rungs, policies, for_choosing)
        first, what = 0, [f"candidate {number} of {len(policies)}" for number in range(1, len(policies) + 1)]
    tested = certify.in_order(bad, many, goal, first)
    if tested is None or tested.failed is not None:
        fails = first if tested is None else tested.number + 1
        raise certify.refusal(bad[fails], many[fails], goal, f"on {where(counted.ran)}, {what[fails]} of {policy.name}")
    unsure = int(((replay(answers, policy).genre == NOTHING) & ~for_choosing).sum())
    entry = counted_entry(base.manifest, counted, tested, seed, unsure, for_choosing)
    still = holding(base.manifest, found)
    if any(one.ran == counted.ran for one in still):
        return Checked(found, entry, False)
    after = msgspec.structs.replace(found, counts=[*still, entry])
    entries = [after if one is found else one for one in base.manifest.certificates]
    manifest = msgspec.structs.replace(base.manifest, certificates=entries)
    write_whole(bundle / MANIFEST, manifest_text(manifest).encode("utf-8"))
    return Checked(after, entry, True)


def _wanted(manifest: Manifest, policy: str | None, risk: certify.Risk | None) -> CertificateEntry:
    found = [one for one in manifest.certificates if policy in (None, one.policy) and risk in (None, one.risk)]
    if len(found) == 1:
        return found[0]
    have = ", ".join(f"{one.policy} ({one.risk})" for one in manifest.certificates) or "none"
    raise UsageError(f"expected one certificate to check, name it with --policy and --risk; the bundle has: {have}")


def _number_of(level: float | None) -> int:
    try:
        return LEVELS.index(-1.0 if level is None else level)
    except ValueError as error:
        raise UsageError(f"min_confidence {level} is not one that edge-reclass calibrate chose") from error
