"""CUDA, TensorRT, ONNX Runtime and the libraries, as installed: nothing but ONNX Runtime is imported for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_reclass.backends import CUDA_BINDINGS, CUDA_MEMORY_VARIABLE, TENSORRT_MODULES
from edge_reclass.host import read_text
from edge_reclass_doctor.machine.host import Host
from edge_reclass_doctor.machine.reading import subfolders
from edge_reclass_doctor.machine.records import CudaSoftware, OnnxRuntime, Python, TensorRt

ONNXRUNTIMES = ("onnxruntime", "onnxruntime-gpu")
"""Distributions of ONNX Runtime; they overwrite each other's files."""

LIBRARIES = ("numpy", "soundfile", "soxr", "msgspec", "pyyaml", "typer", "rich", "av", *ONNXRUNTIMES)
"""Distributions that the runtime imports; versions of these belong to every measurement."""

# Module and the distributions that may bring it.
_TENSORRT_DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_bindings": ("tensorrt-cu13-bindings", "tensorrt-cu12-bindings"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
    "tensorrt_rtx_bindings": ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings"),
}


def probe_tensorrt(host: Host, python: Python) -> tuple[TensorRt | None, str | None]:
    """The TensorRT that ``build`` and the runtime would take, or None and why there is none.

    The version is the one that the package itself says in its source, as engines are keyed by it, else its metadata's.
    """
    for flavour, module in ((flavour, module) for flavour, names in TENSORRT_MODULES.items() for module in names):
        folder = host.package(module)
        if folder is None:
            continue
        said = re.search(
            r"^__version__\s*=\s*[\"']([0-9][^\"']*)[\"']", read_text(folder / "__init__.py") or "", re.MULTILINE
        )
        found = said[1] if said else next(filter(None, map(host.version, _TENSORRT_DISTRIBUTIONS[module])), None)
        return TensorRt(flavour, found, module, str(folder)), None
    return None, _why_no_tensorrt(host.root, python)


def _why_no_tensorrt(root: Path, python: Python) -> str:
    """Mostly it is there for the system's Python, and this environment does not see it."""
    mine = ".".join(python.version.split(".")[:2])
    elsewhere = [
        folder
        for base in ("usr/lib", "usr/local/lib")
        for folder in subfolders(root / base, "python3*/dist-packages/tensorrt")
    ]
    for folder in elsewhere:
        if (other := folder.parent.parent.name.removeprefix("python")) not in (mine, "3"):
            return (
                f"TensorRT is installed for Python {other} ({_absolute(root, folder)}), and this is Python {mine}:"
                " its bindings load only there"
            )
        if python.virtual_environment is not None and not python.sees_system_packages:
            return (
                f"TensorRT is installed in {_absolute(root, folder)}, which this virtual environment does not see:"
                " it was made without --system-site-packages"
            )
        return f"TensorRT is installed in {_absolute(root, folder)}, which this Python does not search"
    return "TensorRT is not installed"


def _absolute(root: Path, path: Path) -> str:
    return "/" + str(path.relative_to(root))


def probe_onnxruntime(host: Host) -> tuple[OnnxRuntime | None, str | None]:
    """ONNX Runtime, imported to ask which providers it was built with; or None and why it cannot be used."""
    try:
        library = host.import_module("onnxruntime")
        providers = tuple(str(name) for name in library.get_available_providers())
        return OnnxRuntime(str(library.__version__), providers), None
    except ModuleNotFoundError:
        return None, "ONNX Runtime is not installed"
    except Exception as error:  # a broken install fails with ImportError, OSError, AttributeError, ...
        return None, f"ONNX Runtime cannot be imported ({type(error).__name__}: {error})"


def probe_cuda(host: Host, packages: Mapping[str, str]) -> CudaSoftware:
    """Toolkit, cuDNN, and the Python binding to CUDA's memory that the runtime would take."""
    forced = host.environ.get(CUDA_MEMORY_VARIABLE)
    binding = next((name for name in CUDA_BINDINGS if forced in (None, "", name) and host.version(name)), None)
    return CudaSoftware(
        toolkit=_toolkit(host.root, packages),
        cudnn=_cudnn(host, packages),
        binding=binding,
        binding_version=host.version(binding) if binding else None,
    )


def _toolkit(root: Path, packages: Mapping[str, str]) -> str | None:
    """From the newest version.json below /usr/local, else from the runtime library's Debian package."""
    for folder in (root / "usr/local/cuda", *reversed(subfolders(root / "usr/local", "cuda-*"))):
        text = read_text(folder / "version.json")
        if text is None:
            continue
        try:
            said = msgspec.json.decode(text, type=dict[str, Any])["cuda"]["version"]
        except (msgspec.DecodeError, KeyError, TypeError):
            continue
        if isinstance(said, str):
            return said
    for name, package in sorted(packages.items(), reverse=True):
        if re.fullmatch(r"cuda-cudart-\d+-\d+", name):
            return package.partition("-")[0]
    return None


def _cudnn(host: Host, packages: Mapping[str, str]) -> str | None:
    for name, package in sorted(packages.items(), reverse=True):
        if re.fullmatch(r"libcudnn\d+(-cuda-\d+)?", name):
            return package.partition("-")[0]
    for name in ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"):
        if found := host.version(name):
            return found
    for folder in ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/local/cuda/lib64"):
        for file in reversed(subfolders(host.root / folder, "libcudnn.so.[0-9]*")):
            return file.name.removeprefix("libcudnn.so.")
    return None
