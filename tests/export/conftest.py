"""Fixtures of the export tests: a wheel with random weights, and the real one where it can be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_reclass.errors import UsageError
from edge_reclass_export import musicnn_wheel
from edge_reclass_export.musicnn_wheel import MusicnnWheel, fetch_wheel
from export.checkpoint_maker import write_wheel
from export.made import MadeEncoders

WHEEL_VARIABLE = "EDGE_RECLASS_MUSICNN_WHEEL"


@pytest.fixture(scope="session")
def made_wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel file with random weights."""
    return write_wheel(tmp_path_factory.mktemp("wheel") / "musicnn-0.1.0-py3-none-any.whl")


@pytest.fixture(scope="session")
def made_wheel(made_wheel_file: Path) -> MusicnnWheel:
    """The opened wheel with random weights."""
    return MusicnnWheel(made_wheel_file, sha256=None)


@pytest.fixture(scope="session")
def made_encoders(tmp_path_factory: pytest.TempPathFactory) -> MadeEncoders:
    """The recipes' tiny encoders."""
    own = tmp_path_factory.getbasetemp()
    return MadeEncoders((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "encoders")


@pytest.fixture
def any_wheel_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the command line take a wheel with random weights, whose sha256 cannot be the pinned one."""
    monkeypatch.setattr(musicnn_wheel, "MusicnnWheel", lambda path: MusicnnWheel(path, sha256=None))


@pytest.fixture(scope="session")
def real_wheel(pytestconfig: pytest.Config) -> MusicnnWheel:
    """The real wheel: $EDGE_RECLASS_MUSICNN_WHEEL, else fetched with pip once and kept in pytest's cache."""
    if given := os.environ.get(WHEEL_VARIABLE):
        return MusicnnWheel(Path(given))
    cached = pytestconfig.cache.mkdir("musicnn") / "musicnn-0.1.0-py3-none-any.whl"
    if not cached.exists():
        try:
            fetch_wheel(keep=cached)
        except UsageError as error:
            pytest.skip(f"the musicnn wheel cannot be fetched and {WHEEL_VARIABLE} is not set: {error}")
    return MusicnnWheel(cached)
