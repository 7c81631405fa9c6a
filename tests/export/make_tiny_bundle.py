"""Exports tiny checkpoints of FMA MLP, MERT and OpenJMLA into one bundle, for check_oldest.py on the oldest Python.

PYTHONPATH=tests python -m export.make_tiny_bundle FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from export.test_three_stages import Checkpoints

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    print(Checkpoints(folder).root)
