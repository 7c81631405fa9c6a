"""fma-mlp: the head on features as they are, against plain torch; the scale of rmse; checkpoints that do not fit."""

# ruff: noqa: E402 - torch is optional, and what follows needs it
from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from edge_reclass.bundle import ExcerptEntry, Fma518Entry, agreement
from edge_reclass.bundle.loading import load
from edge_reclass.errors import UsageError
from edge_reclass.features import FEATURE_NAMES
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.parity import run_graph

torch = pytest.importorskip("torch", reason="reading checkpoints needs torch")

from edge_reclass_export.bundle_writer import BundleChange
from edge_reclass_export.cli import app
from edge_reclass_export.excerpt_option import parse_excerpt
from edge_reclass_export.head_files import parse_head_options
from edge_reclass_export.recipes import fma_mlp_stage
from edge_reclass_export.recipes.fma_mlp_model import RMSE_COLUMNS, RMSE_RATIO, Features
from edge_reclass_export.recipes.fma_mlp_stage import read_fma_mlp

GENRES = (
    *("Blues", "Classical", "Country", "Easy Listening", "Electronic", "Experimental", "Folk", "Hip-Hop"),
    *("Instrumental", "International", "Jazz", "Old-Time/Historic", "Pop", "Rock", "Soul-RnB", "Spoken"),
)
RMSE_MEAN = 394
RELU = parse_head_options("relu", None)


def export_fma_mlp(checkpoint: Path, root: Path, **options: Any) -> BundleChange:
    return read_fma_mlp(checkpoint, root, **options).put(root)


def layers(prefix: str, inputs: int = 518, classes: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    """Linear 518 → 256 → 128 → 16 in a Sequential with ReLU and Dropout between, as the older project trained it."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for number, (wide, narrow) in {0: (inputs, 256), 3: (256, 128), 6: (128, classes)}.items():
        state[f"{prefix}.{number}.weight"] = torch.randn(narrow, wide, generator=generator) / wide**0.5
        state[f"{prefix}.{number}.bias"] = torch.randn(narrow, generator=generator)
    return state


def scaler(*, published: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and deviations from 1e-3 to 1e3; the rmse columns as in FMA's table or as librosa 0.11 has them."""
    random = np.random.default_rng(4)
    scale = 10.0 ** random.uniform(-3, 3, 518)
    mean = scale * random.standard_normal(518)
    ratio = RMSE_RATIO if published else 1.0
    for column, value in zip(RMSE_COLUMNS, (0.3, 0.12, 0.11, 0.001, 0.05), strict=True):
        mean[column], scale[column] = value * ratio, 0.4 * value * ratio
    return mean, scale


def msd_model(path: Path, *, published: bool = True, **changes: Any) -> Path:
    """A file like ``msd_model.pth``: state dict, numpy scaler, genres, epoch, accuracy. None takes a key away."""
    mean, scale = scaler(published=published)
    content: dict[str, Any] = {
        "model": layers("net"),
        "scaler_mean": mean,
        "scaler_scale": scale,
        "genres": list(GENRES),
        "epoch": 42,
        "accuracy": np.float64(0.77),
    }
    content |= changes
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


def plain_torch(path: Path, features: NDArray[np.float32], *, published: bool) -> NDArray[np.float64]:
    """What the checkpoint's own code would answer: published scale, StandardScaler, the network in float64."""
    content = torch.load(path, weights_only=False)  # made by this test
    network = torch.nn.Sequential(
        *(torch.nn.Linear(518, 256), torch.nn.ReLU(), torch.nn.Dropout(0.3)),
        *(torch.nn.Linear(256, 128), torch.nn.ReLU(), torch.nn.Dropout(0.3)),
        torch.nn.Linear(128, 16),
    )
    network.load_state_dict({name.removeprefix("net."): value for name, value in content["model"].items()})
    seen = features.astype(np.float64)
    if published:
        for name in ("max", "mean", "median", "min", "std"):
            seen[:, FEATURE_NAMES.index(f"rmse/{name}/01")] *= 2048 / np.sqrt(2050)
    standardised = (seen - content["scaler_mean"]) / content["scaler_scale"]
    with torch.inference_mode():
        answer: NDArray[np.float64] = network.double().eval()(torch.from_numpy(standardised)).numpy()
    return answer


def unscaled_features(*, published: bool) -> NDArray[np.float32]:
    """Feature vectors as the runtime computes them: rmse on librosa 0.11's scale, whatever the head was trained on."""
    mean, scale = scaler(published=False)
    return (mean + scale * np.random.default_rng(5).standard_normal((40, 518))).astype(np.float32)


def head_of(root: Path) -> bytes:
    bundle = load(root)
    bundle.verify()
    return bundle.path(bundle.manifest.stage("fma").head.file).read_bytes()


# ---- numbers


def test_rmse_columns_are_the_ones_with_a_scale() -> None:
    assert RMSE_COLUMNS == (393, 394, 395, 396, 398)
    assert [FEATURE_NAMES[column] for column in (392, 397)] == ["rmse/kurtosis/01", "rmse/skew/01"]
    assert pytest.approx(45.23, abs=0.005) == RMSE_RATIO


def test_rmse_ratio_is_that_of_the_two_formulas() -> None:
    """The two librosas' formulas on one real spectrum: they differ by the ratio, but for the two half-weighted bins."""
    frame = np.random.default_rng(0).standard_normal(2048) * np.hanning(2048)
    magnitude = np.abs(np.fft.rfft(frame))
    old = np.sqrt(np.mean(magnitude**2))
    weights = np.full(1025, 2.0)
    weights[[0, -1]] = 1.0
    new = np.sqrt(np.sum(weights * magnitude**2) / 2048**2)
    assert old / new == pytest.approx(RMSE_RATIO, rel=2e-3)


@pytest.mark.parametrize("published", [True, False])
def test_parity_with_plain_torch_on_features_as_they_are(published: bool, tmp_path: Path) -> None:
    path = msd_model(tmp_path / "msd_model.pth", published=published)
    change = export_fma_mlp(path, tmp_path / "bundle")
    features = unscaled_features(published=published)
    expected = plain_torch(path, features, published=published)
    got = run_graph(head_of(tmp_path / "bundle"), features)[0]
    found = agreement(expected, got)
    assert found.cosine >= 0.999_999 and found.relative < 1e-5, found
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).all()
    # On the other scale the same head answers something else: the folding is what makes them agree.
    other = plain_torch(path, features, published=not published)
    assert agreement(other, got).relative > 1e-2
    assert ("multiplied by 45.23" in change.notes[0]) == published
    said = load(tmp_path / "bundle").manifest.provenance["fma"]
    assert said["features"] == ("fma-csv" if published else "librosa-0.11")
    assert said["rmse_factor"] == (pytest.approx(RMSE_RATIO) if published else 1.0)
    assert said["checkpoint_says"] == {"epoch": 42, "accuracy": 0.77}
    assert said["parity"]["fp32"]["cosine"] >= 0.999_999


def test_without_its_scaler_the_head_would_answer_something_else(tmp_path: Path) -> None:
    path = msd_model(tmp_path / "msd_model.pth")
    export_fma_mlp(path, tmp_path / "with")
    bare = tmp_path / "bare.pth"
    torch.save(layers("net"), bare)
    change = export_fma_mlp(bare, tmp_path / "without", features="librosa-0.11", genres=GENRES, options=RELU)
    assert "no scaler" in change.notes[1]
    features = unscaled_features(published=True)
    with_scaler, without = (run_graph(head_of(tmp_path / name), features)[0] for name in ("with", "without"))
    assert agreement(with_scaler, without).cosine < 0.9


@pytest.mark.parametrize("features", ["fma-csv", "librosa-0.11"])
def test_features_said_outright_beat_the_guess(features: Features, tmp_path: Path) -> None:
    published = features == "fma-csv"
    path = msd_model(tmp_path / "msd_model.pth", published=not published)
    export_fma_mlp(path, tmp_path / "bundle", features=features)
    rows = unscaled_features(published=published)
    expected = plain_torch(path, rows, published=published)
    assert agreement(expected, run_graph(head_of(tmp_path / "bundle"), rows)[0]).relative < 1e-5


def test_bare_state_dict_on_the_published_scale(tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    torch.save(layers("fc"), path)
    export_fma_mlp(path, tmp_path / "bundle", features="fma-csv", genres=GENRES, options=RELU)
    rows = np.random.default_rng(1).standard_normal((5, 518)).astype(np.float32)
    value = rows.astype(np.float64)
    value[:, [393, 394, 395, 396, 398]] *= 2048 / np.sqrt(2050)
    state = {name: tensor.double().numpy() for name, tensor in layers("fc").items()}
    for name in ("fc.0", "fc.3", "fc.6"):
        value = np.maximum(value, 0) if name != "fc.0" else value
        value = value @ state[f"{name}.weight"].T + state[f"{name}.bias"]
    assert agreement(value, run_graph(head_of(tmp_path / "bundle"), rows)[0]).relative < 1e-5


# ---- what the manifest gets


def test_stage_of_a_published_head_looks_at_the_full_track_at_44100(tmp_path: Path) -> None:
    export_fma_mlp(msd_model(tmp_path / "msd_model.pth"), tmp_path / "bundle")
    manifest = load(tmp_path / "bundle").manifest
    stage = manifest.stage("fma")
    assert stage.encoder == Fma518Entry(rate=44_100)
    assert stage.excerpt == ExcerptEntry(full=True)
    assert stage.head.inputs == ["fma"]
    assert tuple(manifest.genres) == GENRES


def test_other_heads_get_the_bundles_excerpt_and_options_win(tmp_path: Path) -> None:
    own = msd_model(tmp_path / "own.pth", published=False)
    export_fma_mlp(own, tmp_path / "bundle", rate="native")
    stage = load(tmp_path / "bundle").manifest.stage("fma")
    assert stage.excerpt is None
    assert stage.encoder == Fma518Entry(rate="native")
    published = msd_model(tmp_path / "msd_model.pth")
    export_fma_mlp(published, tmp_path / "other", excerpt="30")
    assert load(tmp_path / "other").manifest.stage("fma").excerpt == ExcerptEntry(start="center", seconds=30.0)
    export_fma_mlp(published, tmp_path / "other")
    assert load(tmp_path / "other").manifest.stage("fma").excerpt == ExcerptEntry(start="center", seconds=30.0), "kept"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("full", ExcerptEntry(full=True)),
        ("12.5", ExcerptEntry(start="center", seconds=12.5)),
        ("0:30", ExcerptEntry(start=0.0, seconds=30.0)),
    ],
)
def test_excerpts(text: str, expected: ExcerptEntry) -> None:
    assert parse_excerpt(text) == expected


@pytest.mark.parametrize("text", ["", "half", "0", "-1", "nan", "inf", "-1:30", "1:", ":30", "1:2:3", "nan:3"])
def test_excerpts_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="expected full, SECONDS"):
        parse_excerpt(text)


def test_classes_are_named_by_checkpoint_option_or_bundle(tmp_path: Path) -> None:
    bare = tmp_path / "bare.pth"
    torch.save(layers("fc"), bare)
    with pytest.raises(UsageError, match="does not name its 16 classes"):
        export_fma_mlp(bare, tmp_path / "bundle", features="fma-csv", options=RELU)
    assert not (tmp_path / "bundle").exists()
    export_fma_mlp(msd_model(tmp_path / "msd_model.pth"), tmp_path / "bundle")
    export_fma_mlp(bare, tmp_path / "bundle", features="fma-csv", options=RELU)
    assert tuple(load(tmp_path / "bundle").manifest.genres) == GENRES
    with pytest.raises(CheckpointError, match="16 classes, but there are 2 names"):
        export_fma_mlp(bare, tmp_path / "new", features="fma-csv", genres=("A", "B"), options=RELU)
    with pytest.raises(CheckpointError, match=r"its classes are \['Blues'.*expected \['Spoken'"):
        export_fma_mlp(msd_model(tmp_path / "msd_model.pth"), tmp_path / "new", genres=GENRES[::-1])


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scaler_mean": None}, "scaler_scale alone"),
        ({"scaler_mean": np.zeros(517)}, r"scaler_mean has the shape \[517\], expected \[518\]"),
        ({"scaler_scale": np.full(518, np.nan)}, "scaler_scale holds NaN"),
        ({"scaler_scale": np.where(np.arange(518) == 7, 0.0, 1.0)}, r"scaler_scale\[7\] is 0.0, expected positive"),
        ({"genres": ["A", "B"]}, "2 genres, but the last layer has 16 outputs"),
        ({"genres": "Rock"}, "genres is a str, expected a list of names"),
        (
            {"model": layers("net", inputs=768), "scaler_mean": None, "scaler_scale": None},
            "768 values, expected the 518",
        ),
        ({"model": layers("net") | layers("fc")}, "its layers do not follow one another: net.0 takes 518"),
        ({"model": layers("net") | {"net.6.bias": torch.zeros(15)}}, r"net\.6\.bias expected \[16\], got \[15\]"),
        (
            {"model": layers("net") | {"net.3.weight": torch.zeros(128, 200)}},
            "do not follow one another.*net.3 takes 200",
        ),
        ({"model": layers("net") | {"embed": torch.zeros(3)}}, r"embed \[3\] belongs to no linear layer"),
    ],
)
def test_parts_that_do_not_fit_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = msd_model(tmp_path / "msd_model.pth", **changes)
    with pytest.raises(CheckpointError, match=message):
        export_fma_mlp(path, tmp_path / "bundle", options=RELU)
    assert not (tmp_path / "bundle").exists()


def test_auto_needs_a_scaler_to_look_at(tmp_path: Path) -> None:
    path = msd_model(tmp_path / "msd_model.pth", scaler_mean=None, scaler_scale=None)
    with pytest.raises(UsageError, match=r"--features fma-csv.*or --features librosa-0\.11"):
        export_fma_mlp(path, tmp_path / "bundle", options=RELU)


def test_only_the_documented_layout_is_known_to_have_relu(tmp_path: Path) -> None:
    _, said = run(msd_model(tmp_path / "msd_model.pth"), "--bundle", tmp_path / "bundle")
    assert "the layout of msd_model.pth, which was trained with relu" in said
    for change in ({"scaler_mean": None, "scaler_scale": None}, {"genres": None}, {"model": layers("fc")}):
        other = msd_model(tmp_path / "other.pth", **change)
        with pytest.raises(UsageError, match=r"3 linear layers and does not say.*--activation relu"):
            run(other, "--bundle", tmp_path / "other")


def test_a_pickle_that_wants_more_is_refused(tmp_path: Path) -> None:
    path = msd_model(tmp_path / "msd_model.pth", epoch=datetime.timedelta(days=1))
    with pytest.raises(CheckpointError, match=r"refused.*datetime"):
        export_fma_mlp(path, tmp_path / "bundle")


@pytest.mark.parametrize("size", [0, 64, 100_000])
def test_truncated_files(size: int, tmp_path: Path) -> None:
    content = msd_model(tmp_path / "msd_model.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[:size])
    with pytest.raises(CheckpointError, match=r"empty|truncated|damaged|no torch checkpoint"):
        export_fma_mlp(tmp_path / "cut.pth", tmp_path / "bundle")


# ---- command


def run(*arguments: str | Path) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["fma-mlp", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.stdout, result.stderr


def test_command_says_which_features_it_took(tmp_path: Path) -> None:
    text, said = run(msd_model(tmp_path / "msd_model.pth"), "--bundle", tmp_path / "bundle")
    assert f"scaler_mean[{RMSE_MEAN}]" in said and "45.23" in said
    assert yaml.safe_load(text)["stages"][0]["excerpt"] == {"full": True}
    _, said = run(
        *(msd_model(tmp_path / "own.pth", published=False), "--bundle", tmp_path / "own"),
        *("--stage", "first", "--rate", "22050", "--excerpt", "10:20"),
    )
    assert "stay as they are" in said
    stage = load(tmp_path / "own").manifest.stage("first")
    assert (stage.encoder.rate, stage.excerpt) == (22_050, ExcerptEntry(start=10.0, seconds=20.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--features", "librosa"), "no features 'librosa'"),
        (("--rate", "fast"), "expected 8000 to 192000 Hz or native, got 'fast'"),
        (("--rate", "100"), "got '100'"),
        (("--excerpt", "short"), "got 'short'"),
        (("--stage", "First"), "cannot be called"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        run(msd_model(tmp_path / "msd_model.pth"), "--bundle", tmp_path / "bundle", *arguments)
    assert not (tmp_path / "bundle").exists()


def test_another_scale_of_the_features_brings_its_excerpt(tmp_path: Path) -> None:
    root = tmp_path / "bundle"
    published = msd_model(tmp_path / "msd_model.pth")
    own = msd_model(tmp_path / "own.pth", published=False)

    def excerpt() -> ExcerptEntry | None:
        return load(root).manifest.stage("fma").excerpt

    export_fma_mlp(own, root)
    assert excerpt() is None
    change = export_fma_mlp(published, root)
    assert excerpt() == ExcerptEntry(full=True)
    assert "librosa-0.11 before: its excerpt is now the full track" in change.notes[1]
    change = export_fma_mlp(own, root)
    assert excerpt() is None
    assert "fma-csv before: its excerpt is now that of the bundle" in change.notes[1]
    change = export_fma_mlp(published, root, excerpt="30")
    assert excerpt() == ExcerptEntry(start="center", seconds=30.0) and len(change.notes) == 1


def test_a_bundle_that_cannot_be_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        pytest.fail("the checkpoint was read")

    monkeypatch.setattr(fma_mlp_stage, "read_trained_head", never)
    path = msd_model(tmp_path / "msd_model.pth")
    with pytest.raises(UsageError, match="is no directory"):
        run(path, "--bundle", path)
