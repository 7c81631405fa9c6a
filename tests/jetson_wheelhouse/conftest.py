"""jetson/wheelhouse is a package of scripts, not installed: its folder is put on the path for these tests."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "jetson"))
