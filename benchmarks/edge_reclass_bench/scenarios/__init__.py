"""What is run, named after MLPerf's scenarios where they match.

latency.py     ``stage`` and ``single-stream``: one track after another, subjects taking turns
offline.py     ``offline``: throughput of the pool, pipelined; ``sweep``: the same by batch and by jobs
cold_start.py  ``cold-start``: a fresh process to its first verdict, with files out of memory
energy.py      ``energy``: joules per track; ``sustained``: the same for minutes
ceilings.py    ``ceilings``: what this device can do at most, by the model's own products of matrices
agreement.py   ``agreement``: how often each precision says what FP32 says
build.py       ``build``: engines from nothing
"""

from __future__ import annotations

from typing import Final

SCENARIOS: Final = (
    "stage",
    "single-stream",
    "offline",
    "cold-start",
    "build",
    "agreement",
    "ceilings",
    "sweep",
    "energy",
    "sustained",
)
DEFAULT: Final = SCENARIOS[:6]
ONCE: Final = frozenset(SCENARIOS[4:])
"""Done by the first process alone: one run of minutes, or something that does not vary."""
