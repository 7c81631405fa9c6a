"""The workspace: every large array of a cascade, sized once from the plan.

The arrays are allocated empty, so that the operating system hands out pages only as they are first used: capacity
for 192 kHz costs nothing while the tracks are at 44.1 kHz.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_reclass.cascade.plan import Plan, Signal


class Workspace:
    """Arrays that are reused for every track; what lies in them is valid until the next track.

    ``decoded`` is float32[plan.decode_samples], the excerpt at its native rate; ``signals`` holds one float32 array
    per resampled signal; ``embeddings`` one float32[dim] per stage.
    """

    def __init__(self, plan: Plan) -> None:
        self.decoded: NDArray[np.float32] = np.empty(plan.decode_samples, np.float32)
        self.signals: dict[Signal, NDArray[np.float32]] = {
            signal: np.empty(capacity, np.float32) for signal, capacity in plan.signals.items()
        }
        self.embeddings: dict[str, NDArray[np.float32]] = {
            stage.name: np.empty(stage.encoder.dim, np.float32) for stage in plan.stages
        }
