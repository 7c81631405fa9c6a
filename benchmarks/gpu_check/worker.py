"""One stage in a process of its own: reads a :class:`StageTask`, writes its items as lines of JSON."""

from __future__ import annotations

import ctypes
import signal
import sys
import time
from collections.abc import Iterator
from importlib import import_module

from edge_reclass_bench.worker import serve
from gpu_check import RTX_STAGES, STAGES
from gpu_check.journal import Begun, Item, StageTask, Work

_PR_SET_PDEATHSIG = 1


def measure(task: StageTask) -> Iterator[Begun | Item]:
    """Do the stage."""
    if sys.platform == "linux":  # whoever is killed takes its stage along, or two would measure at once
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    yield from import_module((STAGES | RTX_STAGES)[task.stage]).run(Work(task, time.time))


if __name__ == "__main__":
    serve(StageTask, measure)
