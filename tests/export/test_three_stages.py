"""Three checkpoints → one bundle → verdicts: FMA → MERT → OpenJMLA, each stage's answer computed a second time here."""

# ruff: noqa: E402 - torch is optional, and what follows needs it
from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from typer.testing import CliRunner

from edge_reclass import Cascade
from edge_reclass.audio import Resampler, resampled_length
from edge_reclass.bundle.loading import load
from edge_reclass.features import fma518
from edge_reclass.verdict import Verdict

torch = pytest.importorskip("torch", reason="the exports need torch")
transformers = pytest.importorskip("transformers", reason="MERT's export needs transformers")

from edge_reclass_export.cli import app
from export import mert_maker, openjmla_maker, openjmla_reference
from export.test_fma_mlp import GENRES, layers, msd_model
from synth import music

Array = NDArray[np.float64]
State = dict[str, "torch.Tensor"]
MERT_DIM, MERT_WINDOW = 48, 24_000
STAGES = ("fma", "mert", "jmla")


def head_state(prefix: str, inputs: int, seed: int, gain: float = 1.0) -> State:
    """A head of the older project; ``gain`` on the last layer makes its answers sharp or flat."""
    state = layers(prefix, inputs=inputs, seed=seed)
    state[f"{prefix}.6.weight"] *= gain
    state[f"{prefix}.6.bias"] *= gain
    return state


def probabilities(features: Array, state: Mapping[str, torch.Tensor]) -> Array:
    """Softmax of a head in float64."""
    value = features
    for number in (0, 3, 6):
        weight, bias = (
            next(tensor for name, tensor in state.items() if name.endswith(f".{number}.{kind}")).double().numpy()
            for kind in ("weight", "bias")
        )
        value = (np.maximum(value, 0.0) if number else value) @ weight.T + bias
    exponentials = np.exp(value - value.max())
    result: Array = exponentials / exponentials.sum()
    return result


def published(features: NDArray[np.float32]) -> Array:
    """Features on the scale of FMA's table."""
    scaled = features.astype(np.float64)
    scaled[[393, 394, 395, 396, 398]] *= 2048 / np.sqrt(2050)
    return scaled


def scaler() -> tuple[Array, Array]:
    """Mean and deviation of a few tracks on the scale of FMA's table, which ``--features auto`` has to notice."""
    rows = np.stack([published(fma518(music(4.0, channels=1, seed=seed)[:, 0], 44_100)) for seed in range(10, 14)])
    return rows.mean(axis=0), rows.std(axis=0) + 0.1 * np.abs(rows).max(axis=0) + 1e-3


def export(*arguments: str | Path) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception


RELU = ("--activation", "relu")


class Checkpoints:
    """Three tiny checkpoints with the real files' names, their bundle, and their answers computed without it.

    No stage is sure enough to stop.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / "bundle"
        self.fma = head_state("net", 518, 1, 0.3)
        self.scaler = scaler()
        config = mert_maker.config("95m", **mert_maker.SHALLOW)
        self.mert = mert_maker.hubert(config)
        self.jmla = openjmla_maker.encoder_state()
        self.heads = {
            "mert": head_state("fc", MERT_DIM, 2, 0.3),
            "jmla": head_state("fc", openjmla_maker.WIDTH, 3, 0.3),
        }
        for name, state in self.heads.items():
            torch.save(state, root / f"{name}_head.pth")
        mert_state = mert_maker.tensors(self.mert, old_names=True)
        mert_maker.write(root / "mert", config, state=mert_state, file="pytorch_model.bin")
        large = openjmla_maker.write_large_file(root / "epoch_4-step_1.pth", self.jmla)
        to_bundle = ("--bundle", self.root)
        export("fma-mlp", self.msd_model(root / "msd_model.pth", self.fma), *to_bundle)
        export("mert", root / "mert", "--head", root / "mert_head.pth", *RELU, "--window-seconds", "1", *to_bundle)
        export("openjmla", large, "--head", root / "jmla_head.pth", *RELU, *to_bundle)

    def msd_model(self, path: Path, state: State) -> Path:
        """A file like ``msd_model.pth`` with this scaler."""
        return msd_model(path, model=state, scaler_mean=self.scaler[0], scaler_scale=self.scaler[1])

    def answers(self, audio: NDArray[np.float32]) -> dict[str, Array]:
        """What the three stages should say of mono audio at 44 100 Hz."""
        mean, scale = self.scaler
        features = published(fma518(audio, 44_100))  # of the whole track
        return {
            "fma": probabilities((features - mean) / scale, self.fma),
            "mert": probabilities(self._mert(resampled(middle(audio, 30.0), 24_000)), self.heads["mert"]),
            "jmla": probabilities(self._jmla(resampled(middle(audio, 0.96), 16_000)), self.heads["jmla"]),
        }

    def _mert(self, audio: NDArray[np.float32]) -> Array:
        starts = [*range(0, len(audio) - MERT_WINDOW, MERT_WINDOW), len(audio) - MERT_WINDOW]
        windows = np.stack([audio[start : start + MERT_WINDOW] for start in starts]).astype(np.float64)
        centred = windows - windows.mean(axis=1, keepdims=True)
        normalised = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-7)
        with torch.inference_mode():
            hidden = self.mert(torch.from_numpy(normalised.astype(np.float32))).last_hidden_state
        embedding: Array = hidden.mean(dim=1).mean(dim=0).double().numpy()
        return embedding

    def _jmla(self, audio: NDArray[np.float32]) -> Array:
        window = openjmla_maker.WINDOW
        before = (window - len(audio)) // 2
        padded = np.concatenate([audio[len(audio) - before :], audio, audio])[:window]
        state = {name: tensor.double().numpy() for name, tensor in self.jmla.items()}
        return openjmla_reference.embedding(padded, state, openjmla_maker.COLUMNS * openjmla_maker.PATCH)


def middle(audio: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    count = min(len(audio), round(seconds * 44_100))
    start = (len(audio) - count) // 2
    return audio[start : start + count]


def resampled(audio: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    out = np.empty(resampled_length(len(audio), 44_100, rate), np.float32)
    return out[: Resampler().resample(np.ascontiguousarray(audio), 44_100, rate, out)]


@pytest.fixture(scope="module")
def undecided(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return Checkpoints(tmp_path_factory.mktemp("undecided"))


def track(path: Path, seconds: float = 9.3) -> tuple[Path, NDArray[np.float32]]:
    """A mono file at 44 100 Hz, and its samples as they are read back."""
    soundfile.write(path, music(seconds, channels=1, seed=3)[:, 0], 44_100, subtype="FLOAT")
    return path, soundfile.read(path, dtype="float32")[0]


def classify(bundle: Path, path: Path, policy: str) -> Verdict:
    with Cascade.open(bundle, policy=policy, threads=1) as cascade:
        verdict = cascade.classify(path)
    assert verdict.status == "ok", verdict.error
    return verdict


def test_all_three_stages_answer_what_their_checkpoints_answer(undecided: Checkpoints, tmp_path: Path) -> None:
    pytest.importorskip("librosa", reason="the oracle takes librosa's mel bands")
    path, audio = track(tmp_path / "track.wav")
    expected = undecided.answers(audio)
    verdict = classify(undecided.root, path, "fmj-ev")
    assert tuple(report.name for report in verdict.stages) == STAGES
    assert verdict.decided_by == "jmla"
    for report in verdict.stages:
        assert report.genre == GENRES[int(expected[report.name].argmax())], report.name
        assert report.confidence == pytest.approx(expected[report.name].max(), abs=1e-4), report.name
    seconds = {report.name: report.excerpt.seconds for report in verdict.stages}
    assert seconds == pytest.approx({"fma": 9.3, "mert": 9.3, "jmla": 0.96}, abs=1e-3)


def test_fmj_ev_votes_by_top1_with_its_weights(undecided: Checkpoints, tmp_path: Path) -> None:
    verdict = classify(undecided.root, track(tmp_path / "track.wav")[0], "fmj-ev")
    scores = dict.fromkeys(GENRES, 0.0)
    for report, weight in zip(verdict.stages, (0.25, 0.35, 0.40), strict=True):
        scores[report.genre] += weight * report.confidence
    assert verdict.genre == max(scores, key=lambda genre: scores[genre])
    assert verdict.confidence == pytest.approx(max(scores.values()))


def test_soft_is_the_mean_of_the_stages_probabilities(undecided: Checkpoints, tmp_path: Path) -> None:
    pytest.importorskip("librosa", reason="the oracle takes librosa's mel bands")
    path, audio = track(tmp_path / "track.wav")
    expected = np.mean(list(undecided.answers(audio).values()), axis=0)
    verdict = classify(undecided.root, path, "soft")
    assert len(verdict.stages) == 3
    assert verdict.genre == GENRES[int(expected.argmax())]
    by_name = {score.genre: score.score for score in verdict.top}
    np.testing.assert_allclose([by_name[genre] for genre in GENRES], expected, atol=1e-4)


def test_a_sure_first_stage_spares_the_others(undecided: Checkpoints, tmp_path: Path) -> None:
    root = tmp_path / "bundle"
    shutil.copytree(undecided.root, root)
    export("fma-mlp", undecided.msd_model(tmp_path / "sure.pth", head_state("net", 518, 1, 99.0)), "--bundle", root)
    verdict = classify(root, track(tmp_path / "track.wav")[0], "fmj-ev")
    assert [report.name for report in verdict.stages] == ["fma"]
    assert verdict.decided_by == "fma" and verdict.confidence > 0.95


@pytest.mark.parametrize("policy", ["fmj-ev", "soft"])
def test_real_audio(policy: str, undecided: Checkpoints, data: Path) -> None:
    clips = [sorted((data / "audio" / "fma").glob("*.mp3"))[0], sorted((data / "gtzan" / "jazz").glob("*.ogg"))[0]]
    with Cascade.open(undecided.root, policy=policy, threads=1) as cascade:
        verdicts = list(cascade.classify_many(clips))
    for verdict in verdicts:
        assert verdict.status == "ok", verdict.error
        assert tuple(report.name for report in verdict.stages) == STAGES
        assert verdict.genre in GENRES and verdict.decided_by == "jmla"
    # Different music, different answers: no stage is a constant.
    for first, second in zip(*(verdict.stages for verdict in verdicts), strict=True):
        assert abs(first.confidence - second.confidence) > 1e-6


def test_the_manifest_says_where_everything_is_from(undecided: Checkpoints) -> None:
    bundle = load(undecided.root)
    bundle.verify()
    assert [stage.name for stage in bundle.manifest.stages] == list(STAGES)
    assert {name: said["recipe"] for name, said in bundle.manifest.provenance.items()} == {
        "fma": "fma-mlp",
        "mert": "mert",
        "jmla": "openjmla",
    }
    assert bundle.manifest.default_policy == "soft"
