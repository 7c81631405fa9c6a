"""Made answers whose best policy is known, or that are like real ones: softmax of a true genre and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace

from edge_reclass_learn.answers import Answers, Heard, Said, StageFacts, TrackAnswers

GENRES = ["Alpha", "Beta", "Gamma"]


def said(windows: int, probabilities: Sequence[float] | None, cost: float = 1.0, outside: bool = False) -> Said:
    return Said(
        windows=windows,
        probabilities=None if probabilities is None else [float(p) for p in probabilities],
        cost=cost,
        outside=outside,
    )


def sure(genre: int, confidence: float, genres: int = len(GENRES)) -> list[float]:
    """``confidence`` for one genre, the rest shared by the others."""
    rest = (1 - confidence) / (genres - 1)
    return [confidence if g == genre else rest for g in range(genres)]


def heard(*answers: Said, of: int = 10, **more: Any) -> Heard:
    return Heard(of=of, seconds=30.0, said=list(answers), **more)


def track(number: int, stages: Mapping[str, Heard], **more: Any) -> TrackAnswers:
    plain: dict[str, Any] = {"name": f"t{number}", "group": f"g{number}", "decode": 2.0, "stages": dict(stages)}
    return TrackAnswers(**(plain | more))


def record(stages: Sequence[StageFacts], tracks: Sequence[TrackAnswers], **more: Any) -> Answers:
    plain: dict[str, Any] = {"digest": "0" * 64, "genres": GENRES, "stages": list(stages), "tracks": list(tracks)}
    return Answers(**(plain | more))


def random_answers(
    tracks: int,
    stages: Mapping[str, float],
    windows: Sequence[int] = (1, 3),
    genres: int = 3,
    seed: int = 0,
    hostile: bool = False,
) -> Answers:
    """``stages``: what one window of each costs. More windows are less noisy; dear stages are better.

    ``hostile``: some tracks are short, silent in a stage, or outside of a range.
    """
    random = np.random.default_rng(seed)
    facts = [StageFacts(name=name, signal=name, windows=list(windows)) for name in stages]
    made = []
    for i in range(tracks):
        truth = int(random.integers(genres))
        parts = {}
        for name, price in stages.items():
            of = int(random.integers(1, 11)) if hostile else 10
            silent = hostile and random.random() < 0.1 and bool(parts)
            noise, answers, before = random.normal(0, 1, genres), [], 0
            for count in [*(w for w in windows if w < of), of]:
                shown = noise + random.normal(0, 3 / np.sqrt(count), genres)
                logits = shown * (1.5 / (1 + 0.2 * price))
                logits[truth] += 3.0
                chances = np.exp(logits) / np.exp(logits).sum()
                outside = hostile and bool(random.random() < 0.1)
                answers.append(said(count, chances, price * (count - before), outside))
                before = count
            parts[name] = heard(said(0, None, 0.1), of=of) if silent else heard(*answers, of=of)
        made.append(track(i, parts, label=f"G{truth}"))
    return record(facts, made, genres=[f"G{g}" for g in range(genres)])


def with_own_genres(answers: Answers, stages: Sequence[str]) -> Answers:
    """As if the heads of ``stages`` did not know the last genre, and abstained in every fourth track of that genre."""
    last = answers.genres[-1]
    facts = [replace(one, says=answers.genres[:-1]) if one.name in stages else one for one in answers.stages]
    tracks = []
    for number, one in enumerate(answers.tracks):
        abstains = one.label == last and number % 4 == 0
        changed = {name: _without_last(h, abstains) if name in stages else h for name, h in one.stages.items()}
        tracks.append(replace(one, stages=changed))
    return replace(answers, stages=facts, tracks=tracks)


def _without_last(heard: Heard, abstains: bool) -> Heard:
    made = []
    for one in heard.said:
        if one.probabilities is not None:
            kept = np.array([*one.probabilities[:-1], 0.0])
            one = replace(one, probabilities=(kept / kept.sum()).tolist(), abstains=abstains)
        made.append(one)
    return replace(heard, said=made)
