"""From torch to checked ONNX bytes, in both precisions, on modules small enough to be understood."""

# ruff: noqa: E402 - torch is optional, and what follows needs it

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edge_reclass.bundle.reference import CASES, ReferenceVectors, agreement

torch = pytest.importorskip("torch", reason="the export needs torch")

from torch import nn

from edge_reclass_export import torch_export
from edge_reclass_export.engine.verify import Limits
from edge_reclass_export.errors import GraphError, ParityError
from edge_reclass_export.exported import ExportedEncoder
from edge_reclass_export.parity import run_graph
from edge_reclass_export.precision import EncoderModule, Float32Region, half_precision, largest_value
from edge_reclass_export.torch_export import export_encoder, export_module

WINDOW, RATE, WIDTH, DIM = 320, 8_000, 8, 5


class Front(nn.Module):
    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return 100.0 * waveform.reshape(-1, WINDOW // WIDTH, WIDTH) ** 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = tokens + torch.tanh(self.linear(self.norm(tokens)))
        return result


class Pool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(WIDTH, DIM)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(tokens.mean(dim=1))
        return result


def encoder(body: nn.Module | None = None, seed: int = 0) -> EncoderModule:
    torch.manual_seed(seed)
    return EncoderModule(Front(), body or nn.Sequential(Block(), Block()), Pool())


def exported(module: EncoderModule, **options: object) -> bytes:
    return export_module(module, name="small", window_samples=WINDOW, dim=DIM, **options)  # type: ignore[arg-type]


def test_a_float32_graph() -> None:
    module = encoder()
    content = exported(module, notice="© somebody")
    model = onnx.load_model_from_string(content)
    assert (model.ir_version, model.doc_string) == (10, "© somebody")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert Counter(node.op_type for node in model.graph.node)["LayerNormalization"] == 2
    waveform = np.random.default_rng(0).uniform(-1, 1, (3, WINDOW)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(waveform)).numpy()
    for batch in (1, 3):
        assert agreement(expected[:batch], run_graph(content, waveform[:batch])[0]).relative < 1e-6


def test_the_same_weights_give_the_same_bytes() -> None:
    assert exported(encoder()) == exported(encoder()) != exported(encoder(seed=1))


def parity(export: ExportedEncoder) -> dict[str, dict[str, Any]]:
    found: Any = export.provenance["parity"]
    return dict(found)


def vectors(export: ExportedEncoder) -> ReferenceVectors:
    assert export.reference is not None
    return export.reference


def cosine(export: ExportedEncoder, precision: str) -> float:
    figures = parity(export)[precision]["batch_16"]
    assert isinstance(figures, dict)
    return float(figures["cosine"])


def test_the_largest_value_inside() -> None:
    """Of the body's operators only, views and regions left out; NaN counts as infinite."""

    class Peaks(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return (tokens * -3e4 + 5.0) / 1e6

    module = EncoderModule(Front(), nn.Sequential(Peaks(), nn.Identity()), Pool())
    assert largest_value(module, torch.ones(1, 2))[1] == 3e4
    assert largest_value(module, torch.ones(1, 2), ["0"])[1] == 0.0
    assert largest_value(module, torch.full((1, 2), float("nan")))[1] == float("inf")


def test_a_weight_beyond_float16_is_refused() -> None:
    module = encoder()
    module.body.get_submodule("1.linear").bias[0] = 1e5  # type: ignore[union-attr, index]
    with pytest.raises(ParityError, match=r"a weight of 1e\+05 does not fit float16"):
        half_precision(module)
    assert half_precision(module, ["1.linear"])


def dtypes(content: bytes) -> dict[str, str]:
    model = onnx.load_model_from_string(content)
    return {
        tensor.name: TensorProto.DataType.Name(tensor.data_type)
        for tensor in model.graph.initializer
        if numpy_helper.to_array(tensor).size > 1
    }


def test_half_precision_is_the_body_alone() -> None:
    module = encoder()
    content = exported(module, precision="fp16")
    found = dtypes(content)
    assert {found["body.0.norm.weight"], found["body.1.linear.bias"]} == {"FLOAT16"}
    assert found["pool.last.weight"] == "FLOAT"
    operators = Counter(node.op_type for node in onnx.load_model_from_string(content).graph.node)
    assert (operators["Cast"], operators["LayerNormalization"]) == (2, 2)
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}


def test_regions_stay_in_float32() -> None:
    module = encoder()
    half = half_precision(module, ["1.lin*"])
    assert isinstance(half.body.get_submodule("1.linear"), Float32Region)
    found = {name: tensor.dtype for name, tensor in half.body.state_dict().items()}
    assert found["1.linear.inner.weight"] == torch.float32
    assert found["1.norm.weight"] == found["0.linear.weight"] == torch.float16
    content = exported(module, precision="fp16", float32_regions=["1.lin*"])
    assert Counter(dtypes(content).values())["FLOAT16"] > 0
    assert Counter(node.op_type for node in onnx.load_model_from_string(content).graph.node)["Cast"] == 4
    with pytest.raises(GraphError, match=r"no submodule of the body matches the float32 region 'layers.\*'"):
        half_precision(module, ["layers.*"])


def test_an_outer_region_takes_its_parts_along() -> None:
    half = half_precision(encoder(), ["1", "1.*"])
    assert isinstance(half.body.get_submodule("1"), Float32Region)
    assert not isinstance(half.body.get_submodule("1.inner.linear"), Float32Region)


def test_regions_save_what_float16_cannot_hold() -> None:
    class Square(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.log1p((tokens * 1e4) ** 2)

    module = EncoderModule(Front(), nn.Sequential(Square(), Block()), Pool())
    options: dict[str, object] = {"name": "small", "rate": RATE, "window_samples": WINDOW, "dim": DIM}
    with pytest.raises(ParityError, match=r"fp16 graph would overflow: a value of \S+ inside"):
        export_encoder(module, **options)  # type: ignore[arg-type]
    export = export_encoder(module, **options, float32_regions=[["1"], ["0"]])  # type: ignore[arg-type]
    assert parity(export)["fp16"]["float32_islands"] == ["0"]
    assert cosine(export, "fp16") > 0.9999


def test_precisions_with_reference_vectors_and_figures() -> None:
    module = encoder()
    export = export_encoder(module, name="small", rate=RATE, window_samples=WINDOW, dim=DIM)
    assert list(export.others) == ["fp16"] and set(parity(export)) == {"fp32", "fp16"}
    assert list(parity(export)["fp32"]) == ["batch_1", "batch_3", "batch_16"]
    assert list(parity(export)["fp16"]) == ["batch_1", "batch_3", "batch_16", "largest_value"]
    assert cosine(export, "fp32") > 0.999999
    assert 0.9999 < cosine(export, "fp16") < 1.0
    assert vectors(export).embedding.shape == (len(CASES), DIM)
    with torch.inference_mode():
        expected = module(torch.from_numpy(vectors(export).inputs())).numpy()
    assert agreement(expected, vectors(export).embedding).relative < 1e-5


def test_a_small_maximum_batch_gives_all_reference_vectors() -> None:
    export = export_encoder(encoder(), name="small", rate=RATE, window_samples=WINDOW, dim=DIM, max_batch=2)
    assert list(parity(export)["fp32"]) == ["batch_1", "batch_2"]
    again = run_graph(export.model, vectors(export).inputs())[0]
    assert agreement(again, vectors(export).embedding).relative < 1e-5


def test_a_graph_outside_its_tolerance_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(torch_export.TOLERANCES, "fp16", Limits(cosine=1.0, relative=0.0))
    with pytest.raises(ParityError, match=r"the fp16 graph \(ONNX Runtime, batch 1\)"):
        export_encoder(encoder(), name="small", rate=RATE, window_samples=WINDOW, dim=DIM)


def test_damaged_weights_are_found_before_the_export() -> None:
    module = encoder()
    module.pool.last.bias[0] = float("nan")  # type: ignore[union-attr, index]
    with pytest.raises(ParityError, match="the weights are damaged"):
        export_encoder(module, name="small", rate=RATE, window_samples=WINDOW, dim=DIM)


def test_the_width_is_checked() -> None:
    with pytest.raises(GraphError, match=r"gives \[11, 5\], expected \[11, 6\]"):
        export_encoder(encoder(), name="small", rate=RATE, window_samples=WINDOW, dim=6)
    with pytest.raises(GraphError, match=r"float32\[batch, 5\].*float32\[batch, 6\]"):
        export_module(encoder(), name="small", window_samples=WINDOW, dim=6)


def test_a_layer_norm_in_pieces_is_refused() -> None:
    class Pieces(Block):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            centred = tokens - tokens.mean(dim=-1, keepdim=True)
            result: torch.Tensor = centred / torch.sqrt((centred**2).mean(dim=-1, keepdim=True) + self.norm.eps)
            return result

    with pytest.raises(GraphError, match="has 0 LayerNormalization operators, the module has 1"):
        exported(encoder(Pieces()))


def test_guards_are_refused() -> None:
    class Guarded(Block):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.where(torch.isnan(tokens), torch.zeros_like(tokens), super().forward(tokens))

    with pytest.raises(GraphError, match=r"unwanted operators \{'IsNaN': 1\}"):
        exported(encoder(Guarded()))


def test_another_opset_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for 17, the exporter stays at 18: what it says of itself is compared, not what it was asked for."""
    monkeypatch.setattr(torch_export, "OPSET", 17)
    with pytest.raises(GraphError, match="opset 18, expected 17"):
        exported(encoder())
