"""``classify --state``: what is the same for every run on a state, between the options and the runner."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_reclass.bundle import Bundle
from edge_reclass.bundle.loading import starter_path
from edge_reclass.cascade import Policy, choose_policy, load_bundle
from edge_reclass.errors import UsageError
from edge_reclass.library.basis import Again, Basis
from edge_reclass.library.recording import find_suspects
from edge_reclass.library.scanning import Shard, Work, look
from edge_reclass.library.state import State
from edge_reclass.library.update import classify_work
from edge_reclass.run.formatters import formatter
from edge_reclass.run.output import open_output
from edge_reclass.run.text import printable

if TYPE_CHECKING:
    from edge_reclass.run import Observer, Runner, Sink, Track, TrackSearch
    from edge_reclass.verdict import Verdict


class LibraryRun:
    """An open state, and what is to be done in it. Made by :meth:`open`; a context manager."""

    work: Work

    def __init__(
        self,
        state: State,
        bundle: Bundle,
        policy: Policy,
        basis: Basis,
        again: Again,
        shard: Shard | None,
        *,
        is_new: bool,
    ) -> None:
        """``is_new``: the file was made for this run; where it comes to nothing, it is removed."""
        self._state, self.bundle, self._policy, self._basis = state, bundle, policy, basis
        self._again, self._shard, self._is_new = again, shard, is_new

    @classmethod
    def open(
        cls,
        file: Path,
        bundle: Path | None,
        policy: str | None,
        min_confidence: float | None,
        *,
        again: Again,
        shard: Shard | None,
    ) -> LibraryRun:
        """The bundle is read first: where it cannot be used, no state is made."""
        root = (starter_path() if bundle is None else bundle).resolve()
        if Path(os.path.realpath(file)).is_relative_to(root):
            raise UsageError(f"--state {printable(str(file))}: it is inside the bundle {root}; name a file elsewhere")
        loaded = load_bundle(bundle)
        chosen = choose_policy(loaded, policy)
        is_new = not file.exists()
        state = State.open(file, create=True)
        find_suspects(state)
        return cls(state, loaded, chosen, Basis.of(loaded, chosen, min_confidence), again, shard, is_new=is_new)

    def look(self, paths: Iterable[str]) -> TrackSearch:
        """See :func:`edge_reclass.library.scanning.look`; the search, which is over."""
        self.work = look(self._state, paths, self._basis, self._again, self._shard)
        return self.work.search

    def run(
        self,
        runner: Runner,
        sink: Sink,
        observer: Observer,
        *,
        patience: float,
        alone: Callable[[Track], Verdict] | None = None,
    ) -> None:
        """See :func:`edge_reclass.library.update.classify_work`."""
        classify_work(
            *(self._state, self.work, self._basis, runner, sink, observer),
            again=self._again,
            alone=alone,
            patience=patience,
        )

    def nothing_to_do(self, format: str, top: int) -> None:
        """No verdicts, as a program expects them; people get nothing on standard output."""
        if format != "table":
            with open_output(None) as out:
                genres, stages = self.bundle.manifest.genres, self._policy.stages
                view = formatter(format, genres=genres, stages=stages, top=top, utf8=out.utf8)
                out(view.begin() + view.end())

    def left_alone(self) -> str:
        """What was found and needed no verdict, in one line; empty if nothing."""
        work = self.work
        return left_alone(
            self._state.path,
            unchanged=work.unchanged,
            moved=work.moved,
            retagged=work.retagged,
            linked=work.linked,
            elsewhere=work.elsewhere,
            absent=work.absent,
        )

    def __enter__(self) -> LibraryRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._is_new:
            self._state.discard()
        self._state.close()


def left_alone(
    state: Path, *, unchanged: int, moved: int, retagged: int, linked: int, absent: int, elsewhere: int = 0
) -> str:
    """What needed no verdict, in one line; empty if nothing."""
    parts = [
        (unchanged, "unchanged"),
        (moved, "moved"),
        (retagged, "with new tags only"),
        (linked, "of files known by another name"),
        (elsewhere, "of other shards"),
        (absent, f"not there any more (library list {printable(str(state))} --absent)"),
    ]
    said = ", ".join(f"{number} {what}" for number, what in parts if number)
    return f"verdicts kept: {said}" if said else ""
