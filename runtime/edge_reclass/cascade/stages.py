"""A stage: encoder + head. Samples of one excerpt in, an embedding and calibrated probabilities over the genres out."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_reclass.backends import Backend, Graph
from edge_reclass.cascade.encoders import Encoder, OpenRequest, Parts, Progress, open_encoder
from edge_reclass.cascade.plan import StagePlan
from edge_reclass.cascade.policy import Answer
from edge_reclass.cascade.sound import Sound
from edge_reclass.errors import EngineError


@dataclass(frozen=True)
class Heard:
    """What a stage says of one excerpt: probabilities over the genres, and the distance from what it was fitted on.

    ``outside``: what was heard lies outside of what the head was fitted on, or an embedding that the head takes is one
    of silence. ``distance`` is a multiple of the range test's limit; None where there is no test, or no number.
    ``says`` and ``abstains``: see :class:`Answer`.
    """

    probabilities: tuple[float, ...]
    outside: bool
    distance: float | None
    says: frozenset[int] | None = None
    abstains: bool = False

    def answer(self, stage: str) -> Answer:
        """What ``stage``, which this was heard by, gives to the vote."""
        return Answer(stage, self.probabilities, self.outside, self.says, self.abstains)


class Stage:
    """One opened stage: an encoder, and a head on its own embedding and, if it says so, on earlier ones."""

    def __init__(self, plan: StagePlan, encoder: Encoder, head: Graph, test: Graph | None = None) -> None:
        self.plan = plan
        self._encoder = encoder
        self._head = head
        self._test = test

    @property
    def name(self) -> str:
        """The stage's name in the manifest."""
        return self.plan.name

    def encode(
        self,
        sound: Sound,
        embeddings: Mapping[str, NDArray[np.float32]],
        parts: Parts,
        upto: Sequence[int] = (),
    ) -> Iterator[Progress]:
        """Write the embedding of one excerpt among ``embeddings``; see :meth:`Encoder.encode` for what is given when.

        Where nothing is heard and a later head takes this stage's embedding, it is that of silence.

        Args:
            sound: the stage's excerpt, at its rate.
            embeddings: the workspace's embeddings by stage.
            parts: the encoder's durations are added to it.

        Raises:
            TrackError: the excerpt is shorter than a window and the stage rejects that (``too_short``), or the file
                cannot be read on (``unreadable``).
            EngineError: the encoder failed.
        """
        out, anyway = embeddings[self.name], self.plan.needed_later
        return self._encoder.encode(sound, out, parts, upto=upto, anyway=anyway)

    def judge(self, embeddings: Mapping[str, NDArray[np.float32]], parts: Parts, silent: Collection[str] = ()) -> Heard:
        """What the stage says of the embeddings that its head takes, which must be this track's.

        Args:
            parts: the head's duration is added to it.
            silent: earlier stages whose embedding is that of silence.

        Raises:
            EngineError: the head failed or gave numbers that are not finite, or an embedding has such.
        """
        plan = self.plan
        began = time.perf_counter()
        row = _gather(self._head, plan.head_inputs, embeddings)
        if not np.isfinite(row).all():
            raise EngineError(f"stage {self.name}: the embedding has values that are not finite")
        logits = self._head.run(1)[0]
        if not np.isfinite(logits).all():
            raise EngineError(f"stage {self.name}: the head gave logits that are not finite")
        probabilities, says, abstains = softmax(logits, plan.temperature), None, False
        if plan.map is not None:
            (probabilities, abstains), says = plan.map(probabilities), plan.map.says
        outside, distance = any(name in silent for name in plan.head_inputs), None
        if not outside and self._test is not None and plan.range is not None:
            _gather(self._test, plan.range.inputs, embeddings)
            found = float(self._test.run(1)[0, 0]) / plan.range.limit
            # What is not a number is no proof of being inside.
            outside, distance = not found <= 1.0, found if math.isfinite(found) else None
        parts.add("head", time.perf_counter() - began)
        return Heard(probabilities, outside, distance, says, abstains)

    def close(self) -> None:
        """Release encoder, head and range test."""
        self._encoder.close()
        self._head.close()
        if self._test is not None:
            self._test.close()


def _gather(graph: Graph, names: Sequence[str], embeddings: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Write the embeddings of the stages ``names`` one behind another into the graph's first row, which is returned."""
    row: NDArray[np.float32] = graph.input[0]
    position = 0
    for name in names:
        embedding = embeddings[name]
        row[position : position + len(embedding)] = embedding
        position += len(embedding)
    return row


def softmax(logits: NDArray[np.float32], temperature: float) -> tuple[float, ...]:
    """exp(z/T) / Σ exp(z/T) of ``logits`` (float32[classes]) in float64."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max()
    np.exp(scaled, out=scaled)
    return tuple((scaled / scaled.sum()).tolist())


def open_stage(request: OpenRequest, heads: Backend) -> Stage:
    """Open the encoder of one stage, and its head and range test on ``heads``.

    Raises:
        EngineError: a file cannot be opened, or its shapes do not fit the manifest.
    """
    stage = request.stage
    with ExitStack() as opened:
        encoder = open_encoder(request)
        opened.callback(encoder.close)
        head = heads.open_graph(
            stage.head,
            input_name="features",
            output_name="logits",
            width=stage.head_width,
            output_width=stage.head_classes,
            max_batch=1,
        )
        opened.callback(head.close)
        test = None
        if stage.range is not None:
            test = heads.open_graph(
                stage.range.graph,
                input_name="features",
                output_name="distance",
                width=stage.range.width,
                output_width=1,
                max_batch=1,
            )
        opened.pop_all()
    return Stage(stage, encoder, head, test)
