"""``python -m gpu_check.rtx_probe cuda|cpu``: does TensorRT-RTX build and run a small network on this GPU?

Prints one JSON object per step, so that the step in which it dies is known. On a CPU it only builds, for SM 8.6.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_reclass.backends import open_library

__all__ = ["main"]

_WIDTH, _BATCH = 256, 8


def _tell(**step: object) -> None:
    print(json.dumps(step), flush=True)


def _network() -> tuple[bytes, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """float32 → float16 matrix product → tanh → float32; a batch of inputs and what is expected for it."""
    random = np.random.default_rng(5)
    weight = (random.standard_normal((_WIDTH, _WIDTH)) / np.sqrt(_WIDTH)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["waveform"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["half", "weight"], ["product"]),
        helper.make_node("Tanh", ["product"], ["bent"]),
        helper.make_node("Cast", ["bent"], ["embedding"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", _WIDTH])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", _WIDTH])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    inputs = random.standard_normal((_BATCH, _WIDTH)).astype(np.float32)
    expected = np.tanh(inputs.astype(np.float16).astype(np.float64) @ weight.astype(np.float64))
    return model.SerializeToString(), inputs, expected


def main(device: str) -> None:
    """See the module."""
    library = open_library("tensorrt-rtx")
    trt = library.api
    _tell(version=library.version, knows=[name for name in trt.ComputeCapability.__members__ if name.startswith("SM")])
    model, inputs, expected = _network()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    _tell(builder="made")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        _tell(parse=str([parser.get_error(number).desc() for number in range(parser.num_errors)]))
        return
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("waveform", (1, _WIDTH), (_BATCH, _WIDTH), (_BATCH, _WIDTH))
    config.add_optimization_profile(profile)
    wanted = trt.ComputeCapability.CURRENT if device == "cuda" else trt.ComputeCapability.SM86
    config.num_compute_capabilities = 1
    _tell(compute_capability=str(wanted), accepted=bool(config.set_compute_capability(wanted, 0)))
    plan = builder.build_serialized_network(network, config)
    _tell(build="refused" if plan is None else f"{plan.nbytes} bytes")
    if plan is None or device != "cuda":
        return
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    _tell(deserialise="refused" if engine is None else "done")
    if engine is not None:
        _run(engine, inputs, expected)


def _run(engine: Any, inputs: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    import torch

    context = engine.create_execution_context()
    _tell(context="refused" if context is None else "made")
    if context is None:
        return
    source = torch.from_numpy(inputs).cuda()
    target = torch.full((_BATCH, _WIDTH), float("nan"), device="cuda")
    context.set_input_shape("waveform", (_BATCH, _WIDTH))
    context.set_tensor_address("waveform", source.data_ptr())
    context.set_tensor_address("embedding", target.data_ptr())
    make_stream: Any = torch.cuda.Stream
    stream = make_stream()
    torch.cuda.synchronize()
    accepted = context.execute_async_v3(stream.cuda_stream)
    torch.cuda.synchronize()
    got = target.cpu().numpy().astype(np.float64)
    error = float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
    _tell(run=bool(accepted), relative_error=error if np.isfinite(error) else "not a number")


if __name__ == "__main__":
    main(sys.argv[1])
