"""Runs in a fresh process, as text given to ``python -c``: one track through a cascade, and when it came how far.

Takes one JSON object as argument; prints one. Imports nothing of the harness, so that its imports are not counted.
"""

import json
import sys
import time

entered = time.monotonic_ns()
sys.path[:1] = []  # "python -c" puts the working folder first; the command line does not
given = json.loads(sys.argv[1])

from edge_reclass import Cascade  # noqa: E402

imported = time.monotonic_ns()

from edge_reclass.cascade import Policy, Step  # noqa: E402

steps = tuple(Step(**step) for step in given["policy"]["steps"])
policy = Policy(given["policy"]["name"], given["policy"]["vote"], steps)
cascade = Cascade.open(given["bundle"], given["device"], policy, **given["options"])
opened = time.monotonic_ns()
verdict = cascade.classify(given["track"])
answered = time.monotonic_ns()

with open("/proc/self/status") as status:  # noqa: PTH123
    peak = next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), None)
print(
    json.dumps(
        {
            "entered": entered,
            "imported": imported,
            "opened": opened,
            "answered": answered,
            "peak_bytes": peak,
            "status": verdict.status,
            "genre": verdict.genre,
        }
    )
)
