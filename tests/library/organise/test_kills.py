"""A kill at random moments of a move and of its undo: every track stays whole in one place, and the next run goes on.

The gate kills a few times; ``EDGE_RECLASS_KILLS=200`` kills so often.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_reclass.library.organise import carry_out
from edge_reclass.library.organise.plan import By, Wishes, make_plan
from edge_reclass.library.organise.template import Template
from edge_reclass.library.state import State
from state_rows import add, contents, rows, second_file_system

KILLS = int(os.environ.get("EDGE_RECLASS_KILLS", "8"))
TRACKS = 60


def digest(content: bytes) -> str:
    return hashlib.blake2b(content).hexdigest()


def killed_after(delay: float | None, work: Callable[[], object]) -> tuple[bool, float]:
    """``work`` in a process of its own, killed so many seconds after its start (None: never); if so, and its time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child does not use
        child = os.fork()
    if child == 0:
        if delay is not None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # as deadly as SIGKILL, and the kernel keeps the time
            signal.setitimer(signal.ITIMER_REAL, delay)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    began = time.monotonic()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGALRM), "it failed"
    return code != 0, time.monotonic() - began


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same file system", "another file system"])
def test_kills(tmp_path: Path, elsewhere: bool) -> None:
    music, state = tmp_path / "music", tmp_path / "state.db"
    target = second_file_system(tmp_path) if elsewhere else tmp_path / "sorted"
    randomly = random.Random(20)
    music.mkdir()
    with State.open(state, create=True) as opened:
        for i in range(TRACKS):
            path = music / f"{i:03}.mp3"
            path.write_bytes(randomly.randbytes(20_000 if i % 10 else 500_000))
            add(opened, path, f"Genre {i % 7}")
    sound = {digest(content) for content in contents(music).values()}

    def there() -> None:
        with State.open(state, write=True) as opened:
            carry_out.recover(opened)
            wishes = Wishes(By.MOVE, Template("{genre}/{name}.{ext}"))
            plan = make_plan(opened.tracks(), target, wishes, None, carry_out.made_by(opened))
            assert not carry_out.carry_out(opened, plan).failed and not plan.problems

    def back() -> None:
        with State.open(state, write=True) as opened:
            carry_out.recover(opened)
            assert not carry_out.undo(opened).failed

    both = killed = 0
    try:
        seconds = {work: killed_after(None, work)[1] for work in (there, back)}
        work = there
        for _ in range(KILLS):
            died, took = killed_after(max(0.001, randomly.random() * seconds[work]), work)
            found = [*contents(music).items(), *(contents(target).items() if target.exists() else ())]
            whole = [digest(content) for name, content in found if "/.edge-reclass-" not in f"/{name}"]
            assert set(whole) == sound, "every track is there, whole"
            assert len(whole) <= TRACKS + elsewhere, "a copy and its source, of one track at most"
            both += len(whole) - TRACKS
            killed += died
            if not died:  # the machine was slower when it was measured
                seconds[work] = took
            if not died or randomly.random() < 0.3:  # and turn round half-way at times
                work = back if work is there else there
        there()
        assert set(map(digest, contents(target).values())) == sound and not contents(music)
        assert {Path(path) for path in rows(state)} == {target / name for name in contents(target)}
        back()
        names = {f"{i:03}.mp3" for i in range(TRACKS)}
        assert set(contents(music)) == names == {Path(path).name for path in rows(state)}
        assert set(map(digest, contents(music).values())) == sound and not target.exists()
    finally:
        if elsewhere:
            shutil.rmtree(target, ignore_errors=True)
    assert killed, "none was killed"
    print(f"{killed} of {KILLS} killed; a move takes {seconds[there]:.2f} s; a track and its copy there: {both} times")
