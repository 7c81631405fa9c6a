"""The GPU as ONNX Runtime shows it: its libraries, its errors and what they mean, and whether it was lost."""

from __future__ import annotations

import contextlib
import io
import platform
import re
from typing import Any

import numpy as np

from edge_reclass.backends.ort.sessions import disable_telemetry
from edge_reclass.errors import DeviceError, EngineError, MissingExtraError
from edge_reclass.host.gpu import Gpu
from edge_reclass.installing import pip_command

CUDA_PROVIDER = "CUDAExecutionProvider"
_ORIN = "8.7"

# ONNX Runtime's texts: cudaError_t and cublasStatus_t by number, cudnnStatus_t by name.
_OUT_OF_MEMORY = r"Failed to allocate memory|CUDA failure 2\b|CUBLAS failure 3\b|ALLOC(ATION)?_FAILED|bad_alloc"
_NOT_STARTED = r"CUBLAS failure 1\b|CUDNN_STATUS_NOT_INITIALIZED|NoKernelImage"
_LIBRARY_LOST = r"CUBLAS failure 1[134]\b|CUDNN_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)"
# "/onnxruntime_src/…/file.cc:12 type function(arguments) [with …] " or "[ONNXRuntimeError] : 1 : FAIL : "
_PREFIX = r"^(?:/\S+:\d+ [^()]*\([^()]*\) (?:\[with [^\]]*\] )?|\[ONNXRuntimeError\] : \d+ : \w+ : )"
# Of cudaError_t: errors of a call that leave the context whole; no GPU, driver or binary that fits; a failed capture.
_OF_THE_CALL = frozenset({1})
_UNUSABLE = frozenset({34, 35, 46, 98, 100, 101, 209, 802, 803, 804})
_CAPTURING = frozenset(range(900, 909))


def cause_of(text: str) -> str:
    """The part of ONNX Runtime's message that says what happened, without its source paths and stack."""
    if found := re.search(r"(?:(?:CUDA|CUBLAS|CUDNN\w*) (?:failure|error)|Failed to allocate)[^;\n]*", text):
        return found[0].strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(_PREFIX, "", lines[0])[:400] if lines else "no message"


def import_onnxruntime() -> Any:
    """The installed ``onnxruntime``. Raises ``MissingExtraError`` where there is none, or none with CUDA."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(f"the device cuda needs onnxruntime-gpu ({error})", "gpu") from error
    providers = onnxruntime.get_available_providers()
    if CUDA_PROVIDER not in providers:
        jetson = "; on a Jetson use --device tensorrt instead" if platform.machine() == "aarch64" else ""
        raise MissingExtraError(
            f"the device cuda needs onnxruntime-gpu, but the installed ONNX Runtime {onnxruntime.__version__} is a "
            f"package without CUDA (providers: {', '.join(providers)}); onnxruntime and onnxruntime-gpu cannot be "
            f"installed side by side: first  pip uninstall -y onnxruntime onnxruntime-gpu{jetson}; then",
            "gpu",
        )
    disable_telemetry(onnxruntime)
    return onnxruntime


def _cuda_major(ort: Any) -> str:
    """Major version of CUDA that this ONNX Runtime was built for: 12 up to 1.26, 13 from 1.27."""
    if built := getattr(ort, "cuda_version", ""):
        return str(built).split(".", 1)[0]
    return "13" if tuple(int(part) for part in ort.__version__.split(".")[:2]) >= (1, 27) else "12"


class CudaDevice:
    """The first GPU, reached through ONNX Runtime ``ort``."""

    def __init__(self, ort: Any, gpu: Gpu) -> None:
        self._ort = ort
        self._gpu = gpu
        self._missing: tuple[str, ...] = ()
        self._lost: str | None = None

    def load_libraries(self) -> None:
        """Load CUDA and cuDNN from the nvidia-* wheels, if they are there, and allocate four bytes with them."""
        # It prints failures to stdout, where results belong.
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            self._ort.preload_dlls()
        self._missing = tuple(re.findall(r"^Failed to load ([^\s:/]+):", printed.getvalue(), re.MULTILINE))
        try:
            self.allocate((1,))
        except Exception as error:
            translated = self.translate(error, "--device cuda")
            if isinstance(translated, MemoryError):
                raise translated from error
            raise DeviceError(
                f"--device cuda: ONNX Runtime {self._ort.__version__} cannot use the {self._gpu.name} "
                f"({cause_of(str(error))}); {self.how_to_fix()}"
            ) from error

    def allocate(self, shape: tuple[int, ...]) -> Any:
        """An OrtValue float32[shape] in device memory."""
        return self._ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.float32, "cuda", 0)

    def run_options(self, graph_id: str) -> Any:
        """Run options that capture or replay the CUDA graph of that id; -1: neither."""
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", graph_id)
        return options

    def check(self) -> None:
        """Raise ``DeviceError`` if the device was lost."""
        if self._lost is not None:
            raise DeviceError(f"the GPU was lost earlier in this process ({self._lost}); start the process again")

    def translate(self, error: Exception, what: str) -> Exception:
        """The error of this package that an error of ONNX Runtime stands for."""
        text, cause = str(error), cause_of(str(error))
        if isinstance(error, MemoryError) or re.search(_OUT_OF_MEMORY, text):
            return MemoryError(f"{what}: too little GPU memory ({cause}); lower batch, or free memory of the GPU")
        code = int(found[1]) if (found := re.search(r"CUDA failure (\d+)", text)) else None
        if code in _UNUSABLE or re.search(_NOT_STARTED, text):
            return DeviceError(f"{what}: {cause}; {self.how_to_fix()}")
        if code in _CAPTURING:
            return DeviceError(
                f"{what}: {cause}; a capture failed and has not ended, or another library in this process captures: "
                "OrtCudaBackend(cuda_graphs=False) does without"
            )
        if re.search(_LIBRARY_LOST, text) or (code is not None and code not in _OF_THE_CALL):
            self._lost = cause
            return DeviceError(
                f"{what}: the GPU was lost ({cause}); nothing can run on it in this process any more: start it again, "
                "and look for Xid lines in the kernel's log (dmesg) if it comes back"
            )
        return EngineError(f"{what}: {cause}")

    def how_to_fix(self) -> str:
        """What to install where CUDA did not come up, for this version of ONNX Runtime and this machine."""
        if platform.machine() == "aarch64" and self._gpu.sm == _ORIN:
            return "PyPI's onnxruntime-gpu has no code for Orin (SM 8.7): use --device tensorrt, which JetPack brings"
        cuda = _cuda_major(self._ort)
        missing = f"not found: {', '.join(self._missing)}; " if self._missing else ""
        wheel = f"onnxruntime-gpu[cuda,cudnn]=={self._ort.__version__}"
        return (
            f"{missing}it needs CUDA {cuda}, cuDNN 9, a driver for them and code for this GPU (here: "
            f"{self._gpu.driver}, SM {self._gpu.sm}):  {pip_command()} install '{wheel}'  brings the first two; "
            "onnxruntime-gpu up to 1.26 is for CUDA 12, from 1.27 on for CUDA 13"
        )
