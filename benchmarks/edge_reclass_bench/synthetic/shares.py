"""Thresholds that let a given share of the tracks leave after each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["StepThreshold", "thresholds"]


@dataclass(frozen=True)
class StepThreshold:
    """``accept`` for one stage, and how many of the ``entered`` calibration tracks it lets ``exited``."""

    stage: str
    accept: float
    entered: int
    exited: int


def thresholds(
    order: Sequence[str], confidences: Mapping[str, Sequence[float]], exit_share: Sequence[float]
) -> list[StepThreshold]:
    """One threshold per stage of ``order`` but the last, which decides whatever it says.

    ``confidences[stage][i]`` is what the stage said of calibration track ``i``; ``exit_share[k]`` of the tracks that
    reach the stage ``order[k]`` shall leave there. A threshold lies in the middle between the two confidences that it
    parts (a stage accepts strictly above it); where those are equal, the stage lets fewer tracks go, never more.

    Raises:
        ValueError: shares are not within 0 and 1, or are not one for each stage but the last.
    """
    if len(exit_share) != len(order) - 1 or not all(0.0 <= share <= 1.0 for share in exit_share):
        raise ValueError(f"exit_share: expected {len(order) - 1} numbers within 0 and 1, got {list(exit_share)}")
    remaining = list(range(len(confidences[order[0]])))
    steps = []
    for stage, share in zip(order, exit_share, strict=False):
        said = confidences[stage]
        ranked = sorted((said[track] for track in remaining), reverse=True)
        leaving = round(share * len(ranked))
        accept = _between(ranked, leaving)
        staying = [track for track in remaining if not said[track] > accept]
        steps.append(StepThreshold(stage, accept, len(remaining), len(remaining) - len(staying)))
        remaining = staying
    return steps


def _between(ranked: Sequence[float], leaving: int) -> float:
    """A number below the ``leaving`` largest of ``ranked`` (descending) and not below the next."""
    if not leaving:
        return 1.0
    if leaving == len(ranked):
        return 0.0
    middle = ranked[leaving] + (ranked[leaving - 1] - ranked[leaving]) / 2
    # Between two neighbouring floats there is no middle: it may round to the upper one.
    return middle if middle < ranked[leaving - 1] else ranked[leaving]
