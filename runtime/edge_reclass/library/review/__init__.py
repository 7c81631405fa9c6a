"""Review: a person goes through the tracks that the classifier is least sure of, and says what they are."""

from __future__ import annotations

from edge_reclass.library.review.loop import review
from edge_reclass.library.review.queue import Queue
from edge_reclass.library.review.terminal import Terminal

__all__ = ["Queue", "Terminal", "review"]
