"""What is asked of a bundle's stages."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="bundles are made with the extra [fit]")

import bundles
import labelled_music as made
from edge_reclass.bundle import load
from edge_reclass.errors import UsageError
from edge_reclass_learn.hearing.listening import listening


def test_a_policy_asks_after_its_windows_and_what_it_does_not_ask_is_heard_whole(tmp_path: Path) -> None:
    heard = listening(load(made.base(tmp_path / "base")))
    assert heard.counts == {"low": (1, None), "high": (None,)}
    assert heard.usual == {"low": 1, "high": None}
    assert heard.fullest("high") == (("low", None), ("high", None))


def test_an_encoder_that_no_head_listens_to_is_refused(tmp_path: Path) -> None:
    root = made.base(tmp_path / "base")
    stages = bundles.read_manifest(root)["stages"]
    stages[1]["head"]["inputs"] = ["low"]
    bundles.edit_manifest(root, stages=stages)
    with pytest.raises(UsageError, match="none takes those of high"):
        listening(load(root))
