"""Which TensorRT is here: TensorRT itself, or TensorRT for RTX, chosen by name and never by what happens to work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from edge_reclass.engines import Flavour
from edge_reclass.errors import DeviceError, UsageError

__all__ = ["FLAVOURS", "Library", "open_library"]

FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")

# The second name is the bindings' wheel without the package that only renames it.
_MODULES: dict[Flavour, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_INSTALL: dict[Flavour, str] = {
    "tensorrt": (
        "TensorRT comes with JetPack (python3-libnvinfer; make the environment with --system-site-packages)"
        " or from NVIDIA's packages"
    ),
    "tensorrt-rtx": "TensorRT-RTX comes with  pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings",
}


@dataclass(frozen=True)
class Library:
    """An imported TensorRT; ``module`` is the name under which it was found."""

    flavour: Flavour
    module: str
    version: str
    api: Any

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if self.flavour == 'tensorrt-rtx' else 'TensorRT'} {self.version}"


def open_library(
    flavour: Flavour | Literal["auto"] | str = "auto", find: Callable[[str], Any] = import_module
) -> Library:
    """Import the TensorRT of that flavour; ``auto`` is TensorRT, or TensorRT-RTX where only that is installed.

    Raises:
        UsageError: no such flavour.
        DeviceError: it is not installed or cannot be loaded; the message has each reason.
    """
    if flavour not in (*FLAVOURS, "auto"):
        raise UsageError(f"--flavour: expected auto, {' or '.join(FLAVOURS)}, got {flavour!r}")
    wanted = [name for name in FLAVOURS if flavour in (name, "auto")]
    reasons = []
    for name in wanted:
        for module in _MODULES[name]:
            try:
                api = find(module)
                return Library(name, module, str(api.__version__), api)
            except Exception as error:  # bindings fail with ImportError, OSError or AttributeError for a missing .so
                reasons.append(f"{module}: {error}")
    advice = "; ".join(_INSTALL[name] for name in wanted)
    raise DeviceError(f"no {' and no '.join(wanted)} can be imported ({'; '.join(reasons)}); {advice}")
