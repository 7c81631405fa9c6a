"""What the CUDA backend takes for granted of ONNX Runtime, asked of the installed one: names, arguments, formats."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as real
import pytest
from onnxruntime.capi.onnxruntime_inference_collection import IOBinding

import bundles
from backends import fake_onnxruntime
from edge_reclass.backends.ort import cuda as ort_cuda
from edge_reclass.backends.ort.cpu import OrtBackend
from edge_reclass.backends.ort.cuda import OrtCudaBackend
from edge_reclass.errors import DeviceError, EdgeReclassError, MissingExtraError
from edge_reclass.host.gpu import Gpu, probe_gpu
from edge_reclass.installing import install_command

WIDTH, DIM, BATCH = 160, 8, 4
HAS_CUDA = "CUDAExecutionProvider" in real.get_available_providers()


def has_gpu() -> bool:
    try:
        probe_gpu()
    except DeviceError:
        return False
    return True


@pytest.fixture
def file(tmp_path: Path) -> Path:
    bundles.write_encoder(tmp_path / "mert.onnx", WIDTH, DIM)
    return tmp_path / "mert.onnx"


@pytest.mark.skipif(HAS_CUDA and has_gpu(), reason="there is a GPU and an onnxruntime-gpu")
def test_without_a_gpu_the_installed_onnxruntime_is_refused_with_what_to_do(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_gpu():
        with pytest.raises(DeviceError, match=r"no NVIDIA GPU.*nvidia-smi"):
            OrtCudaBackend(1)
    monkeypatch.setattr(ort_cuda, "probe_gpu", lambda: Gpu("RTX 4090", "8.9", "driver-580.65"))
    if not HAS_CUDA:
        with pytest.raises(MissingExtraError, match="package without CUDA.*" + re.escape(install_command("gpu"))):
            OrtCudaBackend(1)
        return
    with pytest.raises(DeviceError, match=r"cannot use the RTX 4090 .*pip install 'onnxruntime-gpu\[cuda,cudnn\]=="):
        OrtCudaBackend(1)
    assert capfd.readouterr().out == ""


@pytest.mark.skipif(not (HAS_CUDA and has_gpu()), reason="needs onnxruntime-gpu and a GPU")
def test_on_a_gpu_plain_captured_and_replayed_runs_agree_with_the_cpu(file: Path) -> None:
    asked: dict[str, Any] = {"input_name": "waveform", "output_name": "embedding", "width": WIDTH}
    asked |= {"output_width": DIM, "max_batch": BATCH}
    graph, reference = OrtCudaBackend(1).open_graph(file, **asked), OrtBackend(1).open_graph(file, **asked)
    random = np.random.default_rng(0)
    for batch in (1, 3, 1, 3, BATCH, 1, 3, BATCH):
        rows = random.standard_normal((batch, WIDTH)).astype(np.float32)
        graph.input[:batch] = reference.input[:batch] = rows
        np.testing.assert_allclose(graph.run(batch), reference.run(batch), rtol=1e-5)
    assert len(graph._slots) == 3
    graph.close()


def test_every_call_of_the_backend_fits_the_installed_onnxruntime() -> None:
    rows = np.zeros((2, WIDTH), np.float32)
    for function, arguments, named in (
        (real.InferenceSession.__init__, [None, "file", None], {"providers": [], "enable_fallback": 0}),
        (real.InferenceSession.io_binding, [None], {}),
        (real.InferenceSession.get_providers, [None], {}),
        (real.InferenceSession.end_profiling, [None], {}),
        (real.InferenceSession.run_with_iobinding, [None, None, None], {}),
        (real.OrtValue.ortvalue_from_shape_and_type, [[2, WIDTH], np.float32, "cuda", 0], {}),
        (real.OrtValue.update_inplace, [None, rows], {}),
        (real.OrtValue.numpy, [None], {}),
        (IOBinding.bind_cpu_input, [None, "name", rows], {}),
        (IOBinding.bind_ortvalue_input, [None, "name", None], {}),
        (IOBinding.bind_ortvalue_output, [None, "name", None], {}),
        (
            IOBinding.bind_output,
            [None, "name"],
            {"device_type": "cpu", "device_id": 0, "element_type": np.float32, "shape": (2, 8), "buffer_ptr": 0},
        ),
        (IOBinding.synchronize_inputs, [None], {}),
        (IOBinding.synchronize_outputs, [None], {}),
        (real.preload_dlls, [], {}),
    ):
        inspect.signature(function).bind(*arguments, **named)


@pytest.mark.parametrize(
    ("fake", "original"),
    [
        (fake_onnxruntime.IOBinding, IOBinding),
        (fake_onnxruntime.OrtValue, real.OrtValue),
        (fake_onnxruntime.InferenceSession, real.InferenceSession),
        (fake_onnxruntime.FakeOnnxruntime, real),
    ],
)
def test_the_fake_has_no_method_that_the_original_lacks(fake: type, original: Any) -> None:
    of_the_fake = {"settle", "call", "fail", "allocate", "free", "capture"}
    names = {name for name in vars(fake) if not name.startswith("_")} - of_the_fake
    assert names
    assert not [name for name in names if not hasattr(original, name)]


def test_run_options_carry_the_id_of_a_cuda_graph() -> None:
    options = real.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")
    assert options.get_run_config_entry("gpu_graph_id") == "-1"


def test_no_smaller_batch_can_be_written_into_a_value_of_the_full_one() -> None:
    """Why each captured batch size owns its values on the device."""
    value = real.OrtValue.ortvalue_from_shape_and_type([BATCH, WIDTH], np.float32, "cpu", 0)
    with pytest.raises(RuntimeError, match="does not match the size"):
        value.update_inplace(np.zeros((BATCH - 1, WIDTH), np.float32))


def test_python_offers_no_pinned_host_memory_of_the_cuda_provider() -> None:
    """Why the host's side is a plain array."""
    with pytest.raises(Exception, match="Unsupported device type"):
        real.OrtDevice.make("cuda_pinned", 0)


def test_a_profile_names_provider_operator_and_shapes_of_every_kernel(file: Path, tmp_path: Path) -> None:
    options = real.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = real.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    session.run(None, {"waveform": np.zeros((2, WIDTH), np.float32)})
    profile = Path(session.end_profiling())
    assert profile.parent == tmp_path
    events = json.loads(profile.read_text("utf-8"))
    kernels = {e["args"]["op_name"]: e["args"] for e in events if e["name"].endswith("_kernel_time")}
    assert set(kernels) == {"Abs", "Reshape", "ReduceMean", "Mul", "Add", "Log"}
    assert {kernel["provider"] for kernel in kernels.values()} == {"CPUExecutionProvider"}
    assert kernels["Log"]["output_type_shape"] == [{"float": [2, DIM]}]
    assert all(ort_cuda._touches_activation(kernel) for kernel in kernels.values())
    with pytest.raises(EdgeReclassError, match="none of its 6 kernels ran on the GPU"):
        ort_cuda._prove_on_cuda(file, profile)
