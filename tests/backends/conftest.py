"""What the tests of backends share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine store of the test's own: bundles made alike have one digest."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
