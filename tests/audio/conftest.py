"""Files of every format, written once per session."""

from __future__ import annotations

import builtins
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import synth

SECONDS = 13.0


def rate_of(kind: str) -> int:
    return 48_000 if kind == ".opus" else 44_100


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """made(kind) → a stereo file of SECONDS of ``synth.music``; kind is a key of synth's tables."""
    folder = tmp_path_factory.mktemp("made")

    def make(kind: str) -> Path:
        path = folder / f"track{kind}"
        if not path.exists():
            if kind in synth.AV_FORMATS or kind in (".mp2", ".flac.ogg"):
                pytest.importorskip("av")
            rate = rate_of(kind)
            synth.write(path, synth.music(SECONDS, rate), rate)
        return path

    return make


@pytest.fixture()
def copied(made: Callable[[str], Path], tmp_path: Path) -> Callable[[str, str], Path]:
    """copied(kind, name) → a copy of made(kind) with another name."""

    def copy(kind: str, name: str) -> Path:
        return Path(shutil.copyfile(made(kind), tmp_path / name))

    return copy


@pytest.fixture
def remove_av(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """remove_av() → from here on, PyAV is not installed."""

    def remove() -> None:
        real = builtins.__import__

        def without(name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "av" or name.startswith("av."):
                raise ModuleNotFoundError("No module named 'av'", name="av")
            return real(name, *args, **kwargs)

        for name in [name for name in sys.modules if name == "av" or name.startswith("av.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(builtins, "__import__", without)

    return remove
