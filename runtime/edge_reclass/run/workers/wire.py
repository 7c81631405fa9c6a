"""What the process with the encoders and a worker say to one another, and the memory that they share.

Two pipes carry messages, each behind its length; samples and embeddings lie in shared memory. Every message has a type,
so that a worker whose decoder went astray can say nothing but what a worker may say.
"""

from __future__ import annotations

import math
import os
import select
import time
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_reclass.cascade.encoders import Progress
from edge_reclass.cascade.plan import Options, Plan, StagePlan
from edge_reclass.cascade.policy import Policy
from edge_reclass.cascade.sound import Known
from edge_reclass.errors import Status

_MOST_BYTES = 64 << 20
"""Of one message; a manifest is the largest."""

_ALIGNED = 64

T = TypeVar("T")


class Setup(Struct, frozen=True):
    """From what a worker compiles the same plan. ``manifest`` is that of the bundle, as plain values.

    ``memory``: bytes that a track may take beyond the buffers; ``prepare``: ``module:function`` to call first.
    """

    root: str
    manifest: dict[str, Any]
    digest: str
    policy: Policy
    options: Options
    threads: int
    memory: int
    prepare: str | None


class Open(Struct, frozen=True, tag=True):
    """Open a track, and read of it what the policy's first steps can hear, or the whole of its excerpts."""

    path: bytes
    """UTF-8, lone surrogates and all."""
    whole: bool


class Take(Struct, frozen=True, tag=True):
    """See ``Sound.take``; the samples lie in the buffer of the plan's signal of that number."""

    signal: int
    start: int
    count: int


class There(Struct, frozen=True, tag=True):
    """See ``Sound.there``."""

    signal: int
    start: int
    count: int


class Encode(Struct, frozen=True, tag=True):
    """Go on with the embedding of the plan's stage of that number, up to the next progress."""

    stage: int
    upto: tuple[int, ...]


class Check(Struct, frozen=True, tag=True):
    """See ``Hearing.check``."""


class Nothing(Struct, frozen=True, tag=True):
    """See ``Hearing.nothing_heard``."""


class Close(Struct, frozen=True, tag=True):
    """Close the track."""


Request = Open | Take | There | Encode | Check | Nothing | Close


class Claim(Struct, frozen=True, tag=True):
    """On the way to an answer: so many seconds the track says it has."""

    seconds: float


class Ready(Struct, frozen=True, tag=True):
    """No track is open, and the next can be."""


class Done(Struct, frozen=True, tag=True):
    """What was asked for is done; ``spent`` says what took how many seconds."""

    known: Known
    spent: tuple[tuple[str, float], ...] = ()
    start: int = 0
    stop: int = 0
    intact: bool = False
    there: bool = False
    progress: Progress | None = None


class Failed(Struct, frozen=True, tag=True):
    """The track cannot be decoded; without a status, for a reason that nobody foresaw."""

    status: Status | None
    message: str


Reply = Claim | Ready | Done | Failed


class Closed(Exception):
    """The other side has closed its end."""


class Channel:
    """One side of the two pipes."""

    def __init__(self, receive: int, send: int) -> None:
        self._receive, self._send = receive, send
        self._poll = select.poll()
        self._poll.register(receive, select.POLLIN)

    def send(self, message: object) -> None:
        """Send one message.

        Raises:
            Closed: nobody listens any more.
        """
        content = msgspec.msgpack.encode(message)
        view = memoryview(len(content).to_bytes(4, "little") + content)
        try:
            while view:
                view = view[os.write(self._send, view) :]
        except BrokenPipeError as error:
            raise Closed from error

    def receive(self, decoder: msgspec.msgpack.Decoder[T], until: float = math.inf) -> T:
        """The next message.

        Args:
            until: as ``time.monotonic``.

        Raises:
            Closed: there will be none, or none that makes sense.
            TimeoutError: it has not come.
        """
        length = int.from_bytes(self._read(4, until), "little")
        if length > _MOST_BYTES:
            raise Closed
        try:
            return decoder.decode(self._read(length, until))
        except msgspec.MsgspecError as error:
            raise Closed from error

    def _read(self, count: int, until: float) -> bytes:
        content = b""
        while len(content) < count:
            left = until - time.monotonic()
            # Looked at once even if it is too late: this process may have been stopped, and the other not.
            if not self._poll.poll(None if left == math.inf else max(0.0, left * 1e3)):
                raise TimeoutError
            if not (more := os.read(self._receive, count - len(content))):
                raise Closed
            content += more
        return content

    def close(self) -> None:
        """Close this side."""
        os.close(self._receive)
        os.close(self._send)


def is_encoded_by_worker(stage: StagePlan) -> bool:
    """True if the stage's embedding needs no device."""
    return not stage.encoder.graph_files


class Layout:
    """Where in the shared memory what lies."""

    def __init__(self, plan: Plan) -> None:
        self.signals = list(plan.signals)
        shared = [
            any(s.signal == signal and not is_encoded_by_worker(s) for s in plan.stages) for signal in plan.signals
        ]
        lengths = [plan.signals[signal] if wanted else 0 for signal, wanted in zip(self.signals, shared, strict=True)]
        lengths += [stage.encoder.dim if is_encoded_by_worker(stage) else 0 for stage in plan.stages]
        self._places: list[tuple[int, int]] = []
        self.size = _ALIGNED
        for length in lengths:
            self._places.append((self.size, length))
            self.size += -(-4 * length // _ALIGNED) * _ALIGNED

    def signal(self, number: int, memory: Any) -> NDArray[np.float32] | None:
        """The buffer of a signal that a graph hears; None for another."""
        return self._array(number, memory)

    def embedding(self, stage: int, memory: Any) -> NDArray[np.float32] | None:
        """The embedding of a stage that a worker computes; None for another."""
        return self._array(len(self.signals) + stage, memory)

    def _array(self, number: int, memory: Any) -> NDArray[np.float32] | None:
        offset, length = self._places[number]
        return np.frombuffer(memory, np.float32, length, offset) if length else None
