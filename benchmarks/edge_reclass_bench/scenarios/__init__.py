"""What is run, named after MLPerf's scenarios where they match.

latency.py     ``stage`` and ``single-stream``: one track after another, subjects taking turns
offline.py     ``offline``: throughput of the pool, pipelined
cold_start.py  ``cold-start``: a fresh process to its first verdict
build.py       ``build``: engines from nothing
null.py        what is left when the device and the cascade do nothing
"""

from __future__ import annotations

__all__ = ["SCENARIOS"]

SCENARIOS = ("stage", "single-stream", "offline", "cold-start", "build", "null")
