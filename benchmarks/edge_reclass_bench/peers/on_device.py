"""Programs whose batch lies on the device while they compute, so that the device's own clock can time them.

On CUDA, everything of one run is put on one stream: copy in, an event, the computation, an event, copy out. The time
between the events is the device's, the call's is the host's. ONNX Runtime takes part by computing on that stream
(``user_compute_stream``) between tensors that are there already. A CPU has the host's clock only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Rows = NDArray[np.float32]

_AS_THE_RUNTIME = {
    "device_id": "0",
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}


class OnDevice(ABC):
    """One batch ``rows`` float32[batch, window] → embeddings float32[batch, width] on ``device``, cpu or cuda."""

    def __init__(self, rows: Rows, width: int, device: str) -> None:
        cuda = device == "cuda"
        self._rows = torch.from_numpy(rows.copy())
        self._result = torch.empty((len(rows), width))
        if cuda:
            self._rows, self._result = self._rows.pin_memory(), self._result.pin_memory()
        self.input = self._rows.to(device)
        self.output = torch.zeros((len(rows), width), device=device)
        event: Any = torch.cuda.Event
        stream: Any = torch.cuda.Stream
        self.stream = stream() if cuda else None
        self._marks = [event(enable_timing=True) for _ in range(2)] if cuda else []
        if cuda:
            torch.cuda.synchronize()

    @abstractmethod
    def compute(self) -> None:
        """``input`` → ``output``; on CUDA it may return before that is done."""

    def run(self, _: int = 0) -> Rows:
        """From the host's memory to the host's memory; the result is valid until the next run."""
        if self.stream is None:
            self.input.copy_(self._rows)
            self.compute()
            self._result.copy_(self.output)
        else:
            with torch.cuda.stream(self.stream):
                self.input.copy_(self._rows, non_blocking=True)
                self._marks[0].record()
                self.compute()
                self._marks[1].record()
                self._result.copy_(self.output, non_blocking=True)
            self.stream.synchronize()
        result: Rows = self._result.numpy()
        return result

    def device_seconds(self) -> float | None:
        """Of the last run's computation; None on a CPU."""
        return self._marks[0].elapsed_time(self._marks[1]) / 1e3 if self._marks else None


class TorchOnDevice(OnDevice):
    """``encoder``: waveform float32[batch, window] → embedding float32[batch, width]."""

    def __init__(self, encoder: nn.Module, rows: Rows, width: int, device: str) -> None:
        super().__init__(rows, width, device)
        self._encoder = encoder.to(device)

    @torch.inference_mode()
    def compute(self) -> None:
        """See the base."""
        self.output.copy_(self._encoder(self.input))


class OrtOnDevice(OnDevice):
    """A graph waveform → embedding by ONNX Runtime; ``captured``: replayed as a CUDA graph."""

    def __init__(
        self, file: Path, rows: Rows, width: int, device: str, *, threads: int, captured: bool = False
    ) -> None:
        """Raises what ONNX Runtime raises where it cannot open the file so, and ``RuntimeError`` if it fell back."""
        super().__init__(rows, width, device)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._run_options = onnxruntime.RunOptions()
        provider: Any = "CPUExecutionProvider"
        if self.stream is not None:
            options.enable_mem_pattern = False  # allocates at the second run, which a capture forbids
            own = {"user_compute_stream": str(self.stream.cuda_stream), "enable_cuda_graph": str(int(captured))}
            provider = ("CUDAExecutionProvider", _AS_THE_RUNTIME | own)
            # Or the second event would wait for the host.
            self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._session = onnxruntime.InferenceSession(str(file), options, providers=[provider], enable_fallback=0)
        if self.stream is not None and "CUDAExecutionProvider" not in self._session.get_providers():
            raise RuntimeError(f"{file}: ONNX Runtime fell back from the GPU without an error")
        self._binding = self._session.io_binding()
        ends = (
            (self._binding.bind_input, self._session.get_inputs()[0], self.input),
            (self._binding.bind_output, self._session.get_outputs()[0], self.output),
        )
        for bind, end, tensor in ends:
            bind(
                end.name,
                device_type=device,
                device_id=0,
                element_type=np.float32,
                shape=tuple(tensor.shape),
                buffer_ptr=tensor.data_ptr(),
            )

    def compute(self) -> None:
        """See the base."""
        self._session.run_with_iobinding(self._binding, self._run_options)
