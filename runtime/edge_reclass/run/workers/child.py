"""What runs in a worker: it opens one track at a time, and answers what the process with the encoders asks of it.

It holds no encoder but those that need no device, and ends with the process that started it, however that ends.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_reclass.audio import Decoder, Limits, Resampler, Run
from edge_reclass.bundle import Bundle
from edge_reclass.bundle.encoders import decode_encoder
from edge_reclass.bundle.manifest import Manifest
from edge_reclass.cascade.encoders import Encoder, OpenRequest, Parts, Progress, open_encoder
from edge_reclass.cascade.plan import compile_plan
from edge_reclass.cascade.sound import Excerpts, heard_first
from edge_reclass.errors import EdgeReclassError, Status, TrackError
from edge_reclass.run.workers import wire

_PR_SET_PDEATHSIG = 1
_MOST_WRITTEN = 1 << 16
"""Bytes that a worker may write to a file: what its libraries say on standard error."""


def main(requests: int, replies: int, memory: int, parent: int) -> None:
    """Answer requests until there are no more.

    Args:
        requests, replies: pipes' descriptors.
        memory: descriptor of the shared memory.
        parent: process id of who started this.
    """
    _belong_to(parent)
    channel = wire.Channel(requests, replies)
    with suppress(wire.Closed):
        server = Server(channel, mmap.mmap(memory, 0))
        channel.send(wire.Ready())
        server.answer()


def _belong_to(parent: int) -> None:
    """End with the parent; leave no core; write no file."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError):  # where memory is short, rather a worker's than the encoders' process
            Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    if os.getppid() != parent:
        sys.exit()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_WRITTEN, _MOST_WRITTEN))


class _Noted(Parts):
    """What was spent since it was asked last."""

    def __init__(self) -> None:
        super().__init__()
        self._since: list[tuple[str, float]] = []

    def add(self, name: str, seconds: float, clock: Literal["host", "device"] = "host") -> None:
        del clock  # there is no device here
        self._since.append((name, seconds))

    def since(self) -> tuple[tuple[str, float], ...]:
        spent, self._since = tuple(self._since), []
        return spent


class Server:
    """Answers requests, with its buffers, decoder, resampler and encoders, and the track that it has open."""

    def __init__(self, channel: wire.Channel, memory: mmap.mmap) -> None:
        self._channel = channel
        setup = channel.receive(msgspec.msgpack.Decoder(wire.Setup))
        if setup.prepare is not None:
            module, _, function = setup.prepare.partition(":")
            getattr(import_module(module), function)()
        manifest = msgspec.convert(setup.manifest, Manifest, dec_hook=decode_encoder)
        bundle = Bundle(Path(setup.root), manifest, setup.digest)
        self._plan = plan = compile_plan(bundle, setup.policy, {}, setup.options)
        layout = wire.Layout(plan)
        self._decoded = np.empty(plan.decode_samples, np.float32)
        self._signals = {
            signal: _or_own(layout.signal(number, memory), capacity)
            for number, (signal, capacity) in enumerate(plan.signals.items())
        }
        self._numbered = layout.signals
        self._encoders: dict[int, tuple[Encoder, NDArray[np.float32]]] = {}
        for number, stage in enumerate(plan.stages):
            if (out := layout.embedding(number, memory)) is not None:
                self._encoders[number] = open_encoder(OpenRequest(plan, stage, None, setup.threads)), out
        self._decoder, self._resampler = Decoder(Limits(plan.max_rate, plan.decode_seconds)), Resampler()
        self._noted = _Noted()
        self._track = ExitStack()
        self._begun: dict[int, Iterator[Progress]] = {}
        _limit_memory(setup.memory)

    def answer(self) -> None:
        """Answer requests.

        Raises:
            Closed: there are no more.
        """
        requests = msgspec.msgpack.Decoder(wire.Request)
        while True:
            request = self._channel.receive(requests)
            reply: wire.Reply
            try:
                reply = self._done(request)
            except TrackError as error:
                reply = wire.Failed(error.status, str(error))
            except MemoryError as error:
                reply = wire.Failed(Status.OUT_OF_MEMORY, str(error) or "not enough memory for this track")
            except Exception as error:
                said = str(error) if isinstance(error, EdgeReclassError) else f"{type(error).__name__}: {error}"
                reply = wire.Failed(None, said)
            self._channel.send(reply)

    def _done(self, request: wire.Request) -> wire.Done | wire.Ready:
        if isinstance(request, wire.Close):
            self._close()
            return wire.Ready()
        if isinstance(request, wire.Open):
            self._open(request)
            return self._reply()
        excerpts = self._excerpts
        if isinstance(request, wire.Encode):
            return self._reply(progress=self._encode(request))
        if isinstance(request, wire.Check):
            excerpts.check()
            return self._reply()
        if isinstance(request, wire.Nothing):
            raise excerpts.nothing_heard()
        sound = excerpts.at(self._numbered[request.signal], self._noted.add)
        if isinstance(request, wire.There):
            return self._reply(there=sound.there(request.start, request.count))
        samples = sound.take(request.start, request.count)
        # Where the excerpt has turned out to end earlier, they were moved back.
        start = max(0, min(request.start, len(sound) - request.count))
        intact = sound.intact(request.start, request.count)
        return self._reply(start=start, stop=start + len(samples), intact=intact)

    def _reply(self, **values: object) -> wire.Done:
        return msgspec.structs.replace(wire.Done(self._excerpts.known, self._noted.since()), **values)

    def _close(self) -> None:
        self._begun.clear()
        self._track.close()

    def _open(self, request: wire.Open) -> None:
        self._close()

        def choose(total: int, rate: int) -> Sequence[Run]:
            self._channel.send(wire.Claim(total / rate))
            return [(0, total)] if request.whole else heard_first(self._plan, total, rate)

        path = request.path.decode("utf-8", "surrogatepass")
        opened = self._decoder.open(path, self._plan.excerpts, self._decoded, choose)
        track = self._track.enter_context(opened)
        self._excerpts = Excerpts(track, self._plan.excerpts, self._signals, self._resampler)

    def _encode(self, request: wire.Encode) -> Progress | None:
        if (begun := self._begun.get(request.stage)) is None:
            stage, (encoder, out) = self._plan.stages[request.stage], self._encoders[request.stage]
            sound = self._excerpts.at(stage.signal, self._noted.add)
            begun = encoder.encode(sound, out, self._noted, upto=request.upto, anyway=stage.needed_later)
            self._begun[request.stage] = begun
        return next(begun, None)


def _or_own(shared: NDArray[np.float32] | None, capacity: int) -> NDArray[np.float32]:
    return np.empty(capacity, np.float32) if shared is None else shared


def _limit_memory(beyond: int) -> None:
    """Let this process take so many bytes more than it has by now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + beyond
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
