"""A bundle that was fitted to made music, for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Two strengths to choose from in place of five: what is chosen does not matter here."""
    from edge_reclass_learn.fit import judging

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "STRENGTHS", (0.01, 0.1))
        yield


@pytest.fixture(scope="module")
def place(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``music``: a folder for each genre; ``base``; ``new``: fitted from them; ``new.cache``."""
    import labelled_music as made
    from command import run

    root = tmp_path_factory.mktemp("fit")
    made.folders(root / "music")
    made.base(root / "base", accept=0.6)
    done = run("fit", root / "music", "-o", root / "new", "--bundle", root / "base", "--threads", 1)
    assert done.returncode == 0, done.stderr
    (root / "said.txt").write_text(done.stdout, encoding="utf-8")
    return root
