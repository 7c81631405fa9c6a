"""What ``calibrate`` says on the screen."""

from __future__ import annotations

from collections.abc import Iterator

from edge_reclass.bundle import promise, where
from edge_reclass_learn.calibrate.calibrating import Outcome, mistakes
from edge_reclass_learn.calibrate.checking import Checked
from edge_reclass_learn.replaying import NOTHING, Replay

_WORDS = {
    "disagreement": "differ from all stages",
    "error": "wrong genre",
    "error_if_sure": "wrong genre, of those with one",
}


def calibrated(found: Outcome) -> Iterator[str]:
    """What was certified, what it costs, and how near the next candidate was."""
    goal, tested, name = found.goal, found.tested, found.policy.name
    testing = ~found.choosing
    yield (
        f"{len(testing)} tracks, one of each artist: {int(found.choosing.sum())} to choose on, {int(testing.sum())} to"
        f" test with; on {where(found.counted.ran)}"
    )
    yield ""
    yield f"{'':32}{_WORDS[goal.risk]:>32}{'unsure':>9}{'ms per track':>14}"
    old = "before" if found.level is None else f"min_confidence {found.counted.answers.min_confidence or 0:g}"
    new = "certified" if found.level is None else f"min_confidence {found.level:g}"
    for what, one in (("all stages", found.full), (f"{name}, {old}", found.before), (f"{name}, {new}", found.now)):
        if one is not None:
            yield _row(what, one, found)
    yield ""
    if found.before is None:
        yield f"{name} as it was is not in the table: it gives a head a part of the windows that the head takes here"
    if found.level is None:
        for step in found.policy.steps:
            windows = "all windows" if step.windows is None else f"{step.windows} window{'s' * (step.windows > 1)}"
            accept = "decides" if step.accept is None else f"accept above {step.accept:g}"
            never = "never stops" if step.accept == 1.0 else accept
            yield f"after {windows} of {step.after}: {never}"
        if tested.number == 0:
            yield "warning: nothing that stops earlier than after all stages could be certified"
    candidates = f"candidate{'s' * (tested.tested > 1)}"
    line = f"{tested.tested} {candidates} tested in a fixed order, the last one certified with p = {tested.p:.2g}"
    if tested.failed is not None:
        mistaken, many, p = tested.failed
        line += f"; the next made {mistaken} mistakes of {many}, p = {p:.2g}"
    yield line
    yield f"{name}: {promise(found.manifest.certificates[-1], tested.tracks)}"


def _row(what: str, said: Replay, found: Outcome) -> str:
    testing = ~found.choosing
    wrong = int((mistakes(said.genre, found.truth, found.goal) & testing).sum())
    unsure = int(((said.genre == NOTHING) & testing).sum())
    many = int(testing.sum()) - (unsure if found.goal.risk == "error_if_sure" else 0)
    return f"{what:32}{f'{wrong} of {many}':>32}{unsure:>9}{said.cost[testing].mean():>14.1f}"


def checked(found: Checked) -> Iterator[str]:
    """What was counted on another device or other tracks."""
    count, certificate = found.count, found.certificate
    yield (
        f"on {where(count.ran)}: {count.mistakes} mistakes of {count.tracks}, p = {count.p_value:.2g};"
        f" {count.tested} candidates tested"
    )
    yield f"{certificate.policy}: {promise(certificate, count.tracks)}"
    yield "added to the certificate" if found.added else "the certificate holds for this device already: unchanged"
