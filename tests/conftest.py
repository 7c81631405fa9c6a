"""Fixtures shared by all tests: where real audio lies, and why a test that needs it is skipped."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Shared machines are noisy: an example that is slow once is no fault.
# The gate tries the same examples everywhere; `--hypothesis-profile search` looks for new ones.
settings.register_profile("edge-reclass", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile("edge-reclass")

# A shell starts what it runs in the background with SIGINT ignored, and what tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# pytest-xdist has a worker on every CPU already: more threads of numpy and torch in each would wait for one another.
# Nothing has loaded numpy yet; workers and the processes that tests start inherit it. What the environment says stays.
os.environ.setdefault("OMP_NUM_THREADS", "1")

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def state_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Engines of the user who runs the tests are neither used nor written."""
    os.environ.pop("EDGE_RECLASS_ENGINES", None)
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real audio (EDGE_RECLASS_DATA, by default ../shared/data); the test is skipped where it is absent."""
    folder = Path(os.environ.get("EDGE_RECLASS_DATA") or DEFAULT_DATA)
    if not (folder / "index.csv").is_file():
        pytest.skip(f"no real audio: {folder}/index.csv does not exist; set EDGE_RECLASS_DATA to a copy of the data")
    return folder
