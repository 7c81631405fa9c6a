"""Stage ``tests``: the project's tests that want a GPU (``tests/backends``, names with ``gpu``), with pytest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpu_check.journal import Journal, NotHere
from gpu_check.settings import Settings

__all__ = ["read_report", "run"]

ROOT = Path(__file__).resolve().parents[2]
_NOTHING_COLLECTED = 5


def run(settings: Settings, journal: Journal) -> None:
    """See the module."""
    # Those on the fakes run anywhere, and are none of the script's test.
    where = "tests/backends/test_on_gpu.py" if settings.tiny else "tests/backends"
    found = journal.do(f"{where} -k gpu", lambda: _pytest(settings, where), expect=10.0)
    if found:
        print(f"  {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped")
        for reason, count in Counter(found["skips"].values()).items():
            print(f"  {count} skipped: {reason}")


def _pytest(settings: Settings, where: str) -> dict[str, Any]:
    if find_spec("pytest") is None:
        raise NotHere("pytest is not installed; the carried set 'base' has it")
    report = settings.state / "pytest.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", where, "-k", "gpu", "-q", "-p", "no:cacheprovider"]
    # The libraries over there are others than those in the gate: their warnings are shown, and fail nothing.
    command += ["-W", "default", f"--junitxml={report}"]
    seconds = max(5.0, settings.deadline - time.time())
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    if done.returncode == _NOTHING_COLLECTED:
        raise NotHere("there is no such test in this checkout")
    if not report.is_file():
        raise RuntimeError(f"pytest ended with exit code {done.returncode}: {done.stdout.strip()[-1500:]}")
    found = read_report(report)
    if done.returncode != 0 and not found["failures"]:
        raise RuntimeError(f"pytest ended with exit code {done.returncode}: {done.stdout.strip()[-1500:]}")
    return found | {"faults": [f"{name}: {reason}" for name, reason in found["failures"].items()]}


def read_report(path: Path) -> dict[str, Any]:
    """Counts, and why tests failed or were skipped, from pytest's JUnit XML."""
    skips, failures, passed = {}, {}, 0
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        wrong = [child for child in case if child.tag in ("failure", "error")]
        skipped = case.find("skipped")
        if wrong:
            failures[name] = (wrong[0].get("message") or wrong[0].text or "")[:600]
        elif skipped is not None:
            skips[name] = skipped.get("message") or ""
        else:
            passed += 1
    return {"passed": passed, "failed": len(failures), "skipped": len(skips), "skips": skips, "failures": failures}
