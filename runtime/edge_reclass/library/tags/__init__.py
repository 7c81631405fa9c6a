"""Tags of audio files: what they say, and a genre written into them without changing anything else."""

from __future__ import annotations

from edge_reclass.library.tags.reading import FileTags, read

__all__ = ["FileTags", "read"]
