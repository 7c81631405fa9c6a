"""Sinks: where verdicts go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edge_reclass.run.formatters import Formatter, formatter

if TYPE_CHECKING:
    from edge_reclass.run.output import Output
    from edge_reclass.verdict import Verdict


class Sink(Protocol):
    """Takes the verdicts of one run, in order."""

    def write(self, verdict: Verdict) -> None:
        """Take one verdict. What was taken is kept, however the run ends.

        Raises:
            EdgeReclassError: it cannot be written.
            StdoutClosed: nobody reads any more.
        """

    def finish(self) -> None:
        """The run is complete."""

    def stop(self) -> str | None:
        """The run ends early; where what was written is kept, None if that needs no saying."""


class TextSink:
    """A table, JSON, JSON lines or CSV, on standard output or in a file."""

    def __init__(
        self,
        format: str,
        output: Output,
        *,
        genres: Sequence[str],
        stages: Sequence[str],
        top: int = 1,
        explain: bool = False,
    ) -> None:
        """``genres`` and ``stages`` are those of the bundle; ``top`` genres are shown.

        Raises:
            UsageError: no such format, or ``explain`` with a format other than the table.
        """
        self._output = output
        self._view: Formatter = formatter(
            format, genres=genres, stages=stages, top=top, explain=explain, utf8=output.utf8
        )
        self._head = self._view.begin()  # written with the first verdict, so that a run without one replaces nothing
        self._empty = True

    def write(self, verdict: Verdict) -> None:
        """See :meth:`Sink.write`."""
        head = self._head if self._empty else ""
        self._empty = False
        self._output(head + self._view.verdict(verdict))

    def finish(self) -> None:
        """See :meth:`Sink.finish`."""
        self._output((self._head if self._empty else "") + self._view.end())

    def stop(self) -> str | None:
        """See :meth:`Sink.stop`."""
        if self._empty:
            return None
        self._output(self._view.end())
        return None if self._output.partial is None else str(self._output.partial)
