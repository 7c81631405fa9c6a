"""Heads as people save them: every form answers what its own library answers; what a file cannot tell is asked for."""

# ruff: noqa: E402 - torch is optional, and what follows needs it

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edge_reclass.errors import EdgeReclassError, UsageError

torch = pytest.importorskip("torch", reason="the export needs torch")
sklearn_pipeline = pytest.importorskip("sklearn.pipeline", reason="heads of scikit-learn need it")

from safetensors.torch import save_file
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from torch import nn

from edge_reclass_export.bundle_writer import stage_head
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.head_files import HeadOptions, parse_head_options, read_trained_head
from edge_reclass_export.heads import head_answer
from edge_reclass_export.parity import run_graph

WIDTH, CLASSES = 24, 4
GENRES = ["Blues", "Jazz", "Pop", "Rock"]
NONE = HeadOptions()


def rows(*, large: bool = True, width: int = WIDTH) -> NDArray[np.float32]:
    """Ordinary rows, rows far outside of them, and rows near zero."""
    random = np.random.default_rng(7)
    made = random.standard_normal((60, width))
    if large:
        made[20:40] *= 100.0
        made[40:] *= 1e-3
    return made.astype(np.float32)


def trained(module: nn.Module) -> nn.Module:
    """Random weights, norms that are not trivial, and running statistics that are not neutral."""
    torch.manual_seed(3)
    for name, value in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        scale = value.shape[-1] ** -0.5 if value.ndim > 1 else 0.3
        value.copy_(torch.randn(value.shape) * scale)
        if name.endswith("running_var"):
            value.abs_().add_(0.5)
    return module.eval()


def named(**parts: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, part in parts.items():
        module.add_module(name, part)
    return module


def graph(path: Path, options: HeadOptions = NONE, *, width: int = WIDTH, genres: list[str] = GENRES) -> bytes:
    return stage_head(path.parent / "nowhere", path, width, genres, options).content


def answers(path: Path, options: HeadOptions = NONE) -> NDArray[np.float32]:
    """Logits of the exported graph, which the formula in float64 confirms."""
    head = read_trained_head(path, options)
    got = run_graph(graph(path, options), rows())[0]
    exact = head_answer(head.steps, head.scaler, rows())
    np.testing.assert_allclose(got, exact, rtol=2e-4, atol=2e-4)
    return got


def same(module: nn.Module, got: NDArray[np.float32]) -> None:
    with torch.inference_mode():
        expected = module(torch.from_numpy(rows())).numpy()
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-4)


def save(state: Any, path: Path) -> Path:
    torch.save(state, path)
    return path


LINEAR = trained(nn.Linear(WIDTH, CLASSES))


@pytest.mark.parametrize(
    "prefix", ["", "fc.", "classifier.", "head.", "linear.", "model.probe.", "module.net.0.", "x_1."]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_one_linear_layer_under_any_name(prefix: str, suffix: str, tmp_path: Path) -> None:
    state = {prefix + name: value for name, value in LINEAR.state_dict().items()}
    path = tmp_path / f"head{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    same(LINEAR, answers(path))


def test_a_layer_without_bias(tmp_path: Path) -> None:
    module = trained(nn.Sequential(nn.Linear(WIDTH, CLASSES, bias=False)))
    same(module, answers(save(module.state_dict(), tmp_path / "head.pth")))


ACTIVE: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu-tanh": lambda: nn.GELU("tanh"),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky-relu": nn.LeakyReLU,
    "leaky-relu:0.2": lambda: nn.LeakyReLU(0.2),
    "elu": nn.ELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
    "none": nn.Identity,
}


@pytest.mark.parametrize("activation", ACTIVE)
def test_every_activation_is_that_of_torch(activation: str, tmp_path: Path) -> None:
    module = trained(nn.Sequential(nn.Linear(WIDTH, 32), ACTIVE[activation](), nn.Dropout(), nn.Linear(32, CLASSES)))
    path = save({f"net.{name}": value for name, value in module.state_dict().items()}, tmp_path / "head.pth")
    same(module, answers(path, parse_head_options(activation, None)))


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Linear(WIDTH, 32), nn.BatchNorm1d(32), nn.GELU(), nn.Dropout(), nn.Linear(32, CLASSES)],
        lambda: [nn.Linear(WIDTH, 32), nn.GELU(), nn.BatchNorm1d(32), nn.Linear(32, CLASSES)],
        lambda: [nn.Linear(WIDTH, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, CLASSES)],
        lambda: [nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, CLASSES)],
        lambda: [nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, CLASSES)],
        lambda: [nn.BatchNorm1d(WIDTH, affine=False), nn.Linear(WIDTH, 9), nn.GELU(), nn.Linear(9, CLASSES)],
        lambda: [
            nn.Dropout(),
            nn.Linear(WIDTH, WIDTH),
            nn.GELU(),
            nn.Linear(WIDTH, 9),
            nn.GELU(),
            nn.Linear(9, CLASSES),
        ],
        lambda: [nn.Linear(WIDTH, 8, bias=False), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, CLASSES)],
    ],
)
def test_norms_before_and_behind_the_activation(layers: Callable[[], list[nn.Module]], tmp_path: Path) -> None:
    module = trained(nn.Sequential(*layers()))
    path = save({f"head.{name}": value for name, value in module.state_dict().items()}, tmp_path / "head.pth")
    same(module, answers(path, parse_head_options("gelu", None)))


@pytest.mark.parametrize("names", [("hidden", "out"), ("fc1", "fc2"), ("fc2", "fc10"), ("a", "b"), ("b", "a")])
def test_two_layers_of_any_names_chain_by_their_shapes(names: tuple[str, str], tmp_path: Path) -> None:
    first, last = trained(nn.Linear(WIDTH, 9)), trained(nn.Linear(9, CLASSES))
    module = named(**{names[0]: first, names[1]: last})
    path = save(dict(reversed(module.state_dict().items())), tmp_path / "head.pth")
    same(nn.Sequential(first, nn.Tanh(), last), answers(path, parse_head_options("tanh", None)))


def test_numbers_order_layers_whose_shapes_would_fit_any_way(tmp_path: Path) -> None:
    parts = [trained(nn.Linear(WIDTH, WIDTH)), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)]
    module = named(fc10=parts[1], fc2=parts[0], out=parts[2])
    path = save(module.state_dict(), tmp_path / "head.pth")
    same(
        nn.Sequential(parts[0], nn.ReLU(), parts[1], nn.ReLU(), parts[2]),
        answers(path, parse_head_options("relu", None)),
    )


def ambiguous_order() -> nn.Module:
    return named(a=nn.Linear(WIDTH, WIDTH), b=nn.Linear(WIDTH, WIDTH), out=nn.Linear(WIDTH, CLASSES))


def norm_beside_functional_relu() -> nn.Module:
    return named(fc1=nn.Linear(WIDTH, 9), bn1=nn.BatchNorm1d(9), fc2=nn.Linear(9, CLASSES))


@pytest.mark.parametrize(
    ("make", "message", "layers", "forward"),
    [
        (
            ambiguous_order,
            r"order of its layers is ambiguous: 'a,b,out' and 'b,a,out' fit; .*--head-layers a,relu,b,out",
            "b,relu,a,tanh,out",
            lambda m: nn.Sequential(m.b, nn.ReLU(), m.a, nn.Tanh(), m.out),
        ),
        (
            norm_beside_functional_relu,
            r"where the activation stands between fc1, bn1, fc2 is ambiguous; .*--head-layers fc1,relu,bn1,fc2",
            "fc1,bn1,relu,fc2",
            lambda m: nn.Sequential(m.fc1, m.bn1, nn.ReLU(), m.fc2),
        ),
        (
            lambda: nn.Sequential(
                nn.Linear(WIDTH, 9), nn.Dropout(), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, CLASSES)
            ),
            "where the activation stands between 0, 2, 4 is ambiguous",
            "0,2,relu,4",
            lambda m: m,
        ),
    ],
)
def test_what_is_ambiguous_is_named_and_can_be_said(
    make: Callable[[], nn.Module],
    message: str,
    layers: str,
    forward: Callable[[Any], nn.Module],
    tmp_path: Path,
) -> None:
    module = trained(make())
    path = save(module.state_dict(), tmp_path / "head.pth")
    with pytest.raises(UsageError, match=message):
        read_trained_head(path, parse_head_options("relu", None))
    same(forward(module).eval(), answers(path, parse_head_options(None, layers)))
    for wrong, said in (("fc9,relu", "has no layer 'fc9'"), (layers.split(",", maxsplit=1)[0], "expected each of")):
        with pytest.raises(UsageError, match=said):
            read_trained_head(path, parse_head_options(None, wrong))


def two_layers(tmp_path: Path, **beside: Any) -> Path:
    module = trained(nn.Sequential(nn.Linear(WIDTH, 9), nn.GELU(), nn.Linear(9, CLASSES)))
    return save(
        {"model_state_dict": module.state_dict(), **beside} if beside else module.state_dict(), tmp_path / "h.pth"
    )


def test_an_activation_is_never_guessed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"2 linear layers and does not say.*--activation relu\|gelu\|.*export all"):
        read_trained_head(two_layers(tmp_path))
    with pytest.raises(UsageError, match="no activation 'softsign'"):
        parse_head_options("softsign", None)
    with pytest.raises(UsageError, match="leave --activation out"):
        parse_head_options("relu", "a,b")


@pytest.mark.parametrize(
    "beside",
    [
        {"activation": "gelu"},
        {"config": {"activation": "nn.GELU()"}},
        {"hyper_parameters": {"activation": "GELU", "lr": 1e-3}},
    ],
)
def test_an_activation_that_the_file_says(beside: dict[str, Any], tmp_path: Path) -> None:
    path = two_layers(tmp_path, **beside)
    assert np.array_equal(answers(path), answers(path, parse_head_options("gelu", None)))
    with pytest.raises(CheckpointError, match="its activation is gelu, --activation says relu"):
        read_trained_head(path, parse_head_options("relu", None))


STATE = LINEAR.state_dict()
ADAM = torch.optim.Adam(LINEAR.parameters())


@pytest.mark.parametrize(
    "content",
    [
        {"classifier_head": STATE, "label_map": {name: i for i, name in enumerate(GENRES)}},
        {"head": STATE, "optimizer_state_dict": ADAM.state_dict(), "epoch": 3},
        {"state_dict": {"model." + k: v for k, v in STATE.items()} | {"criterion.weight": torch.ones(CLASSES)}},
        {"checkpoint": {"model_state_dict": STATE, "optimizer": {"exp_avg": torch.ones(3)}}, "epoch": 1},
        {"epoch": 3, "model_state_dict": STATE, "genres": GENRES, "val_acc": 0.7},
        {"model": STATE, "model_ema": STATE},
        {**STATE, "loss_fn.pos_weight": torch.ones(CLASSES)},
    ],
)
def test_nested_files(content: dict[str, Any], tmp_path: Path) -> None:
    path = save(content, tmp_path / "head.ckpt")
    same(LINEAR, answers(path))
    head = read_trained_head(path)
    assert head.genres in (None, tuple(GENRES)) and (head.genres is None) == (
        "genres" not in content and "label_map" not in content
    )
    assert any("only training needs" in line for line in head.said) == ("state_dict" in content or "weight" in content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"encoder": STATE, "head": STATE}, "several state dicts: encoder, head"),
        ({**STATE, "embed": torch.ones(3)}, r"embed \[3\] belongs to no linear layer.*torch\.onnx\.export"),
        ({"act.weight": torch.ones(1), **STATE}, r"act\.weight \[1\] belongs to no linear layer"),
        (
            {"a.weight": torch.ones(5, WIDTH), "b.weight": torch.ones(CLASSES, 6)},
            "do not follow one another: a takes 24 and gives 5; b takes 6 and gives 4",
        ),
        ({f"l{i}.weight": torch.ones(2, 2) for i in range(30)}, "30 modules .*a whole network"),
        ({"norm.weight": torch.ones(3), "norm.bias": torch.ones(3)}, "no linear layer"),
        ({"weight": torch.full((CLASSES, WIDTH), torch.nan)}, "holds NaN"),
        ({"weight": torch.ones(CLASSES, WIDTH), "bias": torch.ones(5)}, r"bias expected \[4\], got \[5\]"),
    ],
)
def test_heads_that_are_none(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(EdgeReclassError, match=message):
        read_trained_head(save(content, tmp_path / "head.pth"), parse_head_options("relu", None))


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own calls
def test_an_onnx_file_as_the_message_advises(tmp_path: Path) -> None:
    module = trained(nn.Sequential(nn.Linear(WIDTH, 9), nn.PReLU(), nn.Linear(9, CLASSES)))
    torch.onnx.export(
        module, (torch.zeros(2, WIDTH),), tmp_path / "head.onnx", input_names=["features"], output_names=["logits"],
        dynamic_shapes=({0: "batch"},), opset_version=18, dynamo=True, verbose=False, external_data=False,
    )  # fmt: skip
    same(module, run_graph(graph(tmp_path / "head.onnx"), rows())[0])
    with pytest.raises(UsageError, match="has its activations"):
        graph(tmp_path / "head.onnx", parse_head_options("relu", None))


def test_the_notice_stands_in_the_graph(tmp_path: Path) -> None:
    notice = onnx.load_model_from_string(graph(save(STATE, tmp_path / "head.pth"))).doc_string
    assert "head.pth" in notice and "states no licence" in notice


# scikit-learn.


def fitted(*steps: Any, classes: int = CLASSES) -> Any:
    x = np.random.default_rng(1).standard_normal((80, WIDTH)) * 3.0 + 1.0
    return sklearn_pipeline.make_pipeline(*steps).fit(x, np.array(GENRES)[np.arange(80) % classes])


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


SKLEARN: dict[str, Callable[[], Any]] = {
    "logistic": lambda: fitted(StandardScaler(), LogisticRegression()),
    "alone": lambda: fitted(LogisticRegression())[-1],
    "two classes": lambda: fitted(StandardScaler(), LogisticRegression(), classes=2),
    "no intercept": lambda: fitted(LogisticRegression(fit_intercept=False)),
    "no mean": lambda: fitted(StandardScaler(with_mean=False), LogisticRegression()),
    "no deviation": lambda: fitted(StandardScaler(with_std=False), LogisticRegression()),
    **{
        activation: lambda activation=activation: fitted(
            StandardScaler(), MLPClassifier((9, 7), activation=activation, max_iter=20)
        )
        for activation in ("relu", "tanh", "logistic", "identity")
    },
    "network of two classes": lambda: fitted(StandardScaler(), MLPClassifier((9,), max_iter=20), classes=2),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SKLEARN)
def test_heads_of_scikit_learn_as_skops_and_as_npz(kind: str, tmp_path: Path) -> None:
    """The .npz is saved by the two lines that the refusal of the pickle prints, run as they stand."""
    sio, joblib = pytest.importorskip("skops.io"), pytest.importorskip("joblib")
    model = SKLEARN[kind]()
    expected, genres = model.predict_proba(rows()), list(map(str, model.classes_))
    sio.dump(model, tmp_path / "head.skops")
    joblib.dump(model, tmp_path / "head.joblib")
    with pytest.raises(UsageError, match="a pickle can run code") as refused:
        read_trained_head(tmp_path / "head.joblib")
    lines = str(refused.value).splitlines()[1:]
    assert len(lines) == 2
    code = "\n".join(lines).replace("'head.", f"'{tmp_path}/head.")
    exec(code, {})
    for suffix in (".skops", ".npz"):
        path = tmp_path / f"head{suffix}"
        got = run_graph(graph(path, genres=[]), rows())[0]
        np.testing.assert_allclose(probabilities(got), expected, atol=1e-4)
        assert read_trained_head(path).genres == tuple(genres)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: fitted(PCA(3), LogisticRegression()),
            "it holds PCA → LogisticRegression; expected",
        ),
        (lambda: StandardScaler().fit(rows()), "it holds StandardScaler"),
    ],
)
def test_skops_files_of_other_models(make: Callable[[], Any], message: str, tmp_path: Path) -> None:
    sio = pytest.importorskip("skops.io")
    sio.dump(make(), tmp_path / "head.skops")
    with pytest.raises(CheckpointError, match=message):
        read_trained_head(tmp_path / "head.skops")


def test_damaged_skops_files(tmp_path: Path) -> None:
    path = tmp_path / "head.skops"
    path.write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match="no skops file"):
        read_trained_head(path)
    for schema in ("[]", "{}", '{"__class__": "LogisticRegression", "content": {"content": {}}}', "[" * 100_000):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("schema.json", schema)
        with pytest.raises(CheckpointError, match=r"no skops file, or damaged|expected LogisticRegression"):
            read_trained_head(path)
    node = {"__class__": "ndarray", "__loader__": "NdArrayNode", "type": "numpy", "file": "../../outside.npy"}
    plain = {"__class__": "LogisticRegression", "content": {"content": {"coef_": node}}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", json.dumps(plain))
    with pytest.raises(CheckpointError, match=r"outside\.npy"):
        read_trained_head(path)


def test_other_files_are_refused_with_what_is_taken(tmp_path: Path) -> None:
    (tmp_path / "head.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UsageError, match=r"numpy\.savez\('head\.npz'"):
        read_trained_head(tmp_path / "head.pkl")
    with pytest.raises(UsageError, match=r"expected a head as \.onnx, \.npz, \.skops, \.pth"):
        read_trained_head(tmp_path / "head.h5")
    with pytest.raises(UsageError, match="cannot read the head"):
        read_trained_head(tmp_path / "absent.pickle")


def test_an_npz_of_several_layers_says_its_activation(tmp_path: Path) -> None:
    layers = {
        "kernel_0": np.ones((WIDTH, 3)),
        "bias_0": np.ones(3),
        "kernel_1": np.ones((3, CLASSES)),
        "bias_1": np.ones(4),
    }
    np.savez(tmp_path / "head.npz", **layers)
    with pytest.raises(UsageError, match="2 linear layers"):
        read_trained_head(tmp_path / "head.npz")
    assert len(read_trained_head(tmp_path / "head.npz", parse_head_options("tanh", None)).steps) == 3
    np.savez(tmp_path / "objects.npz", kernel=np.array([None], dtype=object), bias=np.ones(1))
    with pytest.raises(CheckpointError, match="no head's weights"):
        read_trained_head(tmp_path / "objects.npz")
