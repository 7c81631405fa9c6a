"""From a source through a runner to a sink, until the end or a signal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from edge_reclass.errors import EdgeReclassError
from edge_reclass.run.output import StdoutClosed

if TYPE_CHECKING:
    from edge_reclass.run.sinks import Sink
    from edge_reclass.run.sources import Track
    from edge_reclass.verdict import Verdict


class Runner(Protocol):
    """Classifies tracks."""

    def verdicts(self, tracks: Iterable[Track], came: Callable[[Verdict | None], None] = ...) -> Iterator[Verdict]:
        """One verdict per track, in order; ``tracks`` is read only a few ahead.

        ``came`` is told of each verdict as soon as it is there, before those of slower tracks; by the thread that reads
        the verdicts, which tells it None from time to time while none comes.
        """

    def finished(self) -> Iterator[Verdict]:
        """After ``verdicts`` was left early: the verdicts of tracks that are done, without waiting for others."""

    def cancel(self) -> int:
        """Begin no further track; how many are still being classified."""

    def close(self, timeout: float | None = None) -> bool:
        """Wait for the tracks that are being classified, at most ``timeout`` seconds; False where some still run."""


class Observer(Protocol):
    """Is called as a run goes on."""

    def wrote(self, verdict: Verdict) -> None:
        """A verdict was written."""

    def stopping(self, error: BaseException, running: int) -> None:
        """The run ends early because of ``error``, and waits for ``running`` tracks that are being classified."""

    def stopped(self, error: BaseException, kept: str | None) -> None:
        """The run has ended early; ``kept`` is where its verdicts are, if that needs saying."""


def run(tracks: Iterable[Track], runner: Runner, sink: Sink, observer: Observer, *, patience: float) -> None:
    """Classify ``tracks``; what was classified is written even if a signal or an error ends the run early.

    Args:
        patience: seconds that a run which ends early waits for the tracks that are being classified.

    Raises:
        KeyboardInterrupt, SystemExit: a signal came. At another one while tracks are waited for, the runner is left as
            it is: a lock of it may be held for good.
        DeviceError: the device is lost.
        EdgeReclassError, StdoutClosed: the sink cannot write.
    """

    def write(verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            sink.write(verdict)
            observer.wrote(verdict)

    try:
        write(runner.verdicts(tracks))
        sink.finish()
    except StdoutClosed:
        runner.close(timeout=0)
        raise
    except BaseException as error:
        kept = None
        try:
            write(runner.finished())
            if running := runner.cancel():
                observer.stopping(error, running)
                runner.close(timeout=patience)
                write(runner.finished())
        except (EdgeReclassError, StdoutClosed):
            pass  # the terminal or the disk is gone too; what counts is why we stop
        finally:
            with suppress(EdgeReclassError, StdoutClosed):
                kept = sink.stop()
            observer.stopped(error, kept)
        runner.close(timeout=0)
        raise
    runner.close()
