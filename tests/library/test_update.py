"""The updater that a resident program keeps: one open pool, many updates."""

from __future__ import annotations

import os
import time

import pytest

from edge_reclass import CascadePool, load_bundle
from edge_reclass.library import Basis, State, Updater
from edge_reclass.verdict import Verdict
from libraries import Library, library, small_bundle

__all__ = ["library", "small_bundle"]


def test_one_pool_serves_many_updates(library: Library) -> None:
    with State.open(library.file, create=True) as state, CascadePool.open(2, library.bundle) as pool:
        updater = Updater(state, pool, Basis.of(load_bundle(library.bundle), pool.plan.policy, None))
        first = updater.update([library.music])
        assert (first.to_do, first.unchanged) == (3, 0)
        new = library.add("new.wav")
        assert updater.update([new]).to_do == 1  # a file, as a watcher names it
        again = updater.update([library.music])
        assert (again.to_do, again.unchanged, again.absent) == (0, 4, 0)
        new.unlink()
        assert updater.update([new]).absent == 1
    assert library.done() == []  # what the command rests on is the same


def test_a_track_that_is_being_classified_when_it_ends_is_kept(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stops:
        def write(self, verdict: Verdict) -> None:
            raise SystemExit(1)

        def finish(self) -> None: ...
        def stop(self) -> str | None: ...

    with State.open(library.file, create=True) as state, CascadePool.open(2, library.bundle) as pool:
        classify = pool._classify

        def slowly(path: str | os.PathLike[str]) -> Verdict:
            if "two" in str(path):
                time.sleep(1)
            return classify(path)

        monkeypatch.setattr(pool, "_classify", slowly)
        updater = Updater(state, pool, Basis.of(load_bundle(library.bundle), pool.plan.policy, None))
        with pytest.raises(SystemExit):
            updater.update([library.music / "album"], Stops())
        row = state.track(library.music / "album/two.flac")
        assert row is not None and row.status is not None
