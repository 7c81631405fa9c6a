"""What the starter remembers of its clips, for ``edge-reclass fit``: embeddings, and where the clips are from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_reclass_export.onnx_writer import write_bytes
from edge_reclass_learn.hearing import memory
from starter.catalogue import GENRES, Clip

TRACKS: Final = "memory/tracks.txt"
_TERMS: Final = """\
The clips of which embeddings.npz holds what the encoders made of them, in its order. It holds no audio.
gtzan: research only, no licence; emotify (Magnatune): CC BY-NC-SA; speech: research only.
"""


def write_memory(root: Path, clips: Sequence[Clip], vectors: Mapping[str, NDArray[np.floating]]) -> None:
    """Write the memory of some of ``clips`` into the bundle ``root``: ``memory.MOST`` of each genre, from all groups.

    Args:
        vectors: float[clips, dim] by stage
    """
    some = memory.chosen([clip.genre for clip in clips], [clip.group for clip in clips])
    kept = [clips[i] for i in some]
    content = memory.packed(
        {stage: found[some] for stage, found in vectors.items()},
        [clip.genre for clip in kept],
        [clip.group for clip in kept],
        GENRES,
    )
    write_bytes(content, root / memory.FILE)
    text = _TERMS + "".join(f"{clip.dataset}  {clip.genre}  {clip.path}\n" for clip in kept)
    write_bytes(text.encode("utf-8"), root / TRACKS)
