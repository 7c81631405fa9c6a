"""What an object keeps alive, for tests of what is released."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType


def reachable(root: object) -> list[object]:
    """All that the garbage collector can reach from ``root``, but not through classes, functions and modules."""
    seen: dict[int, object] = {}
    waiting = [root]
    while waiting:
        held = waiting.pop()
        if id(held) not in seen and not isinstance(held, type | FunctionType | ModuleType):
            seen[id(held)] = held
            waiting += gc.get_referents(held)
    return list(seen.values())
