"""What is learned from music and from a bundle's answers to it.

In the order in which one reads: ``data``, ``hearing``, ``fit``; then ``evaluate``, ``calibrate``, ``cluster``, with
``pages`` for what they show. What stands here looks for order, windows and thresholds of a policy, and needs numpy and
the core alone: ``Answers`` is the record of what every stage says of every track and of what that takes
(``answers.save``, ``load``); ``propose`` finds the policy of least expected cost and judges it by cross-validation;
``replay`` says what a policy would have said and cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_reclass._lazy import lazy

if TYPE_CHECKING:
    from edge_reclass_learn.answers import Answers, Costs, Heard, Said, StageFacts, TrackAnswers
    from edge_reclass_learn.proposal import Goal, Judged, Proposal, Spread, judged, propose
    from edge_reclass_learn.replaying import Replay, everything, replay

# When they are first used: the command line imports this package for the help of its commands.
_HOMES = {
    "answers": ["Answers", "Costs", "Heard", "Said", "StageFacts", "TrackAnswers"],
    "proposal": ["Goal", "Judged", "Proposal", "Spread", "judged", "propose"],
    "replaying": ["Replay", "everything", "replay"],
}

__all__ = [
    "Answers",
    "Costs",
    "Goal",
    "Heard",
    "Judged",
    "Proposal",
    "Replay",
    "Said",
    "Spread",
    "StageFacts",
    "TrackAnswers",
    "everything",
    "judged",
    "propose",
    "replay",
]

__getattr__, __dir__ = lazy(
    __name__, {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}
)
