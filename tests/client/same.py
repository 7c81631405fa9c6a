"""What of two verdicts has to be the same, whoever asked for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_reclass import Verdict

MEASURED = {"milliseconds": 0.0}


def timeless(verdict: Verdict) -> Verdict:
    """Without what was measured or is a moment."""
    stages = tuple(replace(stage, milliseconds=0.0, parts=(), embedding=None) for stage in verdict.stages)
    return replace(Verdict.from_dict(verdict.to_dict()), stages=_rounded(stages), at=None)


def _rounded(stages: Any) -> Any:
    whole = Verdict("", "ok", "", "", stages=stages)  # type: ignore[arg-type]
    return Verdict.from_dict(whole.to_dict()).stages


def unnamed(verdict: Verdict) -> Verdict:
    """Without what content alone does not say either."""
    return replace(timeless(verdict), path="", size=None, mtime_ns=None)
