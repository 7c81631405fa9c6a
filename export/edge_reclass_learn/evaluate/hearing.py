"""Bundles and labelled tracks → what each bundle's stages hear of the tracks that all of them can hear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

from edge_reclass import Bundle
from edge_reclass.bundle import load
from edge_reclass.cascade import Policy
from edge_reclass.errors import UsageError
from edge_reclass.run import printable
from edge_reclass_learn.data.corrections import from_state, is_state
from edge_reclass_learn.data.groups import group
from edge_reclass_learn.data.labelled import Labelled, read_data
from edge_reclass_learn.evaluate.intervals import DRAWS
from edge_reclass_learn.hearing.examples import Example
from edge_reclass_learn.hearing.gather import gather
from edge_reclass_learn.hearing.listening import Listening, listening, running_order
from edge_reclass_learn.hearing.memory import fitted_sounds, recall, short
from edge_reclass_learn.progress import Say

CrossValidate = Literal["auto", "always", "never"]
CROSS_VALIDATE: Final[tuple[CrossValidate, ...]] = get_args(CrossValidate)


@dataclass(frozen=True)
class Options:
    """How to evaluate.

    cache: file that keeps what was heard
    policy: of the bundles; None: each one's default
    cross_validate: whether new heads are judged in place of the bundle's; auto: where it was fitted on the tracks
    folds, seed: how tracks are dealt
    threads: of the encoders; None: all CPUs
    draws: of each bootstrap
    sample: tracks that the real cascade classifies; 0: none
    devices: on which it does, beside the CPU
    baselines: what other approaches find is measured, too
    tags: graph of the tags of musicnn, for one of the baselines; None: that one is left out
    encoders: a linear probe on each encoder is judged, too
    """

    cache: Path
    policy: str | None = None
    cross_validate: CrossValidate = "auto"
    folds: int = 5
    seed: int = 0
    threads: int | None = None
    draws: int = DRAWS
    sample: int = 0
    devices: Sequence[str] = ()
    baselines: bool = False
    tags: Path | None = None
    encoders: bool = False


@dataclass(frozen=True)
class HeardBundle:
    """A bundle, and what its stages heard of the data's tracks.

    name: its own among the bundles
    examples: by the tracks' names
    remembered: tracks that the bundle remembers, where its heads were fitted on them beside others
    known: names of tracks that its heads were fitted on, as far as it is known
    given: how many tracks the data have
    lost: what could not be heard: path and reason
    digest: of the sounds and their labels
    """

    name: str
    bundle: Bundle
    heard: Listening
    policy: Policy
    examples: Mapping[str, Example]
    remembered: Sequence[Example]
    known: frozenset[str]
    given: int
    lost: Sequence[tuple[Path, str]]
    digest: str


def hear_bundles(paths: Sequence[Path], data: Path, options: Options, say: Say) -> list[HeardBundle]:
    """Hear the labelled tracks of ``data`` with each bundle; those that all can hear are kept, in the same groups.

    Raises:
        UsageError: the data cannot be used, or nothing can be heard; or a bundle lacks the policy.
        BundleError, EngineError, DeviceError: a bundle cannot be used.
    """
    bundles = _named(paths)
    for _, bundle in bundles:
        if options.policy is not None and options.policy not in (known := bundle.manifest.policies):
            raise UsageError(f"{bundle.root}: no policy {options.policy!r}; it has {', '.join(known)}")
    if is_state(data):
        reads = [from_state(data, bundle, running_order(bundle.manifest)) for _, bundle in bundles]
    else:
        reads = [read_data(data)] * len(bundles)
    for note in dict.fromkeys(note for read in reads for note in read.notes):
        say(note)
    found = _in_groups([_hear(*bundle, read.tracks, options, say) for bundle, read in zip(bundles, reads, strict=True)])
    if not found[0].examples:
        lost = [f"{printable(str(path))}: {why}" for one in found for path, why in one.lost]
        raise UsageError(f"{data}: no track can be heard by every stage of every bundle; {'; '.join(lost[:3])}")
    return found


def _named(paths: Sequence[Path]) -> list[tuple[str, Bundle]]:
    """Bundles, each with a name of its own."""
    bundles = [load(path) for path in paths]
    seen: Counter[str] = Counter()
    found = []
    for bundle in bundles:
        seen[bundle.name] += 1
        number = seen[bundle.name]
        found.append((bundle.name if number == 1 else f"{bundle.name} ({number})", bundle))
    return found


def _hear(name: str, bundle: Bundle, tracks: Sequence[Labelled], options: Options, say: Say) -> HeardBundle:
    heard = listening(bundle)
    policy = heard.policies[options.policy or bundle.manifest.default_policy]
    memory = recall(bundle, heard)
    found = gather(bundle, heard, tracks, memory, options.cache, options.threads, say, mixed=True)
    given = [example for example in found.examples if not example.remembered]
    sounds, told = fitted_sounds(bundle), fit_facts(bundle)
    same_data = told.get("data_sha256") == found.digest
    known = {given[i].name for i in found.in_base}
    known |= {one.name for one in given if same_data or (one.sound and short(one.sound) in sounds)}
    mixed = bool(told.get("remembered_tracks"))
    here = {one.group for one in given}  # what is remembered of these tracks would be heard twice
    remembered = [e for e in found.examples if e.remembered and e.group not in here] if mixed else []
    return HeardBundle(
        name=name,
        bundle=bundle,
        heard=heard,
        policy=policy,
        examples={one.name: one for one in given},
        remembered=remembered,
        known=frozenset(known),
        given=len(tracks),
        lost=[(one.track.path, one.why) for one in found.left_out],
        digest=found.digest,
    )


def fit_facts(bundle: Bundle) -> Mapping[str, object]:
    """What ``edge-reclass fit`` wrote into the manifest; nothing where it did not make the bundle."""
    told = bundle.manifest.provenance.get("fit")
    return told if isinstance(told, dict) else {}


def _in_groups(heard: Sequence[HeardBundle]) -> list[HeardBundle]:
    """The tracks that all have heard, in the first one's order; what one of them finds to belong together does."""
    names = [n for n in heard[0].examples if all(n in one.examples for one in heard)]
    belongs = [[(str(i), one.examples[n].group) for i, one in enumerate(heard)] for n in names]
    groups = dict(zip(names, group(belongs, []), strict=True))
    found = []
    for one in heard:
        remembered = [replace(e, group=f"remembered {e.group}") for e in one.remembered]
        examples = {n: replace(one.examples[n], group=groups[n]) for n in names}
        found.append(replace(one, examples=examples, remembered=remembered, known=one.known & set(names)))
    return found
