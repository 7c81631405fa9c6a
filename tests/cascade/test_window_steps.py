"""Steps of a policy after some of a stage's windows: what they hear and cost; no grouping changes a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import bundles
from backends import fake_onnxruntime
from backends.fakes import fake_gpu, put_engines
from edge_reclass import Cascade, CascadePool, Verdict
from edge_reclass.backends.ort import cuda as ort_cuda
from edge_reclass.bundle.loading import load
from edge_reclass.cascade import choose_policy
from edge_reclass.cascade.encoders import Parts, base
from edge_reclass.cascade.encoders.windowed import RunningMean, WindowedEncoder, Windows
from edge_reclass.cascade.policy import Answer, Policy, Step, check, decide
from edge_reclass.cascade.shared_batches import AddRows, Fill
from edge_reclass.cascade.windowing import listening_order
from edge_reclass.errors import BundleError, TrackError, UsageError
from edge_reclass.host import Gpu
from lanes_device import SharingDevice

RATE = 16_000


def steps(*counts: int | None, after: str = "mert", accept: float = 0.8) -> list[dict[str, Any]]:
    """Manifest entries of one stage's steps; the last one, after all windows, decides."""
    made = []
    for count in counts:
        step: dict[str, Any] = {"after": after, "weights": {after: 1.0}}
        made.append(step if count is None else step | {"windows": count, "accept": accept})
    return made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mert, after 1, 3 and all of its 8 windows of 0.5 s, then jmla, after 2 and all; both heads listen."""
    stages = [
        bundles.waveform_stage("mert", window=8_000),
        bundles.waveform_stage("jmla", head={"inputs": ["mert", "jmla"]}),
    ]
    policies = {
        "listen": {"vote": "soft", "steps": [*steps(1, 3, None), *steps(2, None, after="jmla", accept=0.75)]},
        "thorough": {"vote": "soft", "steps": [*steps(None), *steps(None, after="jmla")]},
    }
    policies["listen"]["steps"][2]["accept"] = 0.85
    policies["thorough"]["steps"][0]["accept"] = 1.0
    root = bundles.make_bundle(
        tmp_path_factory.mktemp("bundle"), stages, policies=policies, default_policy="listen", min_confidence=0.0
    )
    bundles.random_heads(root, stages, 3.0)
    return root


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Each half second of them at a level of its own; some are short, some have silent windows, one is silent."""
    root, paths = tmp_path_factory.mktemp("tracks"), []
    for i in range(24):
        random = np.random.default_rng(i)
        count = 10 if i % 4 else 2 + i // 4
        levels = 10.0 ** random.uniform(-3.5, -0.7, count)
        levels[random.random(count) < (0.5 if i % 5 == 0 else 0.0)] = 0.0
        levels[: 10 * (i == 23)] = 0.0
        samples = random.standard_normal((count, 8, 1_000)) * levels[:, None, None] * random.uniform(0.1, 2, (8, 1))
        paths.append(root / f"{i}.wav")
        soundfile.write(paths[-1], samples.ravel().clip(-1, 1).astype(np.float32), RATE, subtype="FLOAT")
    return paths


def said(verdict: Verdict) -> Any:
    """Everything in a verdict but what it took, at full precision."""
    stages = [(stage.name, stage.genre, stage.confidence, stage.excerpt, stage.windows) for stage in verdict.stages]
    names = ("path", "status", "genre", "confidence", "decided_by", "reason", "reason_code", "top", "error")
    return [getattr(verdict, name) for name in names], stages


def heard(verdict: Verdict) -> list[tuple[str, int, int]]:
    return [(stage.name, stage.windows.heard, stage.windows.of) for stage in verdict.stages if stage.windows]


@pytest.fixture(scope="module")
def expected(bundle: Path, tracks: list[Path]) -> list[Any]:
    with Cascade.open(bundle) as cascade:
        verdicts = list(cascade.classify_many(tracks))
    ends = Counter(heard(verdict)[-1][:2] for verdict in verdicts if verdict.ok)
    assert {("mert", 1), ("mert", 3), ("jmla", 2), ("jmla", 4)} <= set(ends), f"tracks must end at every step: {ends}"
    return [said(verdict) for verdict in verdicts]


@pytest.fixture(params=[False, True], ids=["step by step", "ahead"])
def ahead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """What a device's batches cost, as if it had been measured so."""
    monkeypatch.setattr(base, "_CHEAP", 1e9 if request.param else 0.0)
    yield request.param


@pytest.mark.parametrize("lanes", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_every_grouping_gives_the_same_verdicts(
    bundle: Path, tracks: list[Path], expected: list[Any], lanes: int, batch: int, ahead: bool
) -> None:
    with CascadePool.open(lanes, bundle, SharingDevice(), batch=batch) as pool:
        assert [said(verdict) for verdict in pool.classify_many(tracks)] == expected
    if not ahead:
        with CascadePool.open(lanes, bundle, batch=batch) as pool:
            assert [said(verdict) for verdict in pool.classify_many(tracks)] == expected
        with Cascade.open(bundle, batch=batch) as cascade:
            assert [said(verdict) for verdict in cascade.classify_many(tracks)] == expected


@pytest.mark.parametrize("bindings", [("cuda-bindings",), ("pycuda",)], ids=str)
@pytest.mark.parametrize("lanes", [1, 4])
def test_on_tensorrt_too(
    bundle: Path,
    tracks: list[Path],
    expected: list[Any],
    lanes: int,
    bindings: tuple[str, ...],
    ahead: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_engines(bundle, max_batch=6)
    with fake_gpu(monkeypatch, bindings=bindings), CascadePool.open(lanes, bundle, "tensorrt") as pool:
        assert [said(verdict) for verdict in pool.classify_many(tracks)] == expected


@pytest.mark.parametrize("lanes", [1, 4])
def test_on_cuda_too(
    bundle: Path, tracks: list[Path], expected: list[Any], lanes: int, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_onnxruntime.install(monkeypatch)
    monkeypatch.setattr(ort_cuda, "probe_gpu", lambda: Gpu("RTX 4090", "8.9", "driver-580.65"))
    with CascadePool.open(lanes, bundle, "cuda") as pool:
        assert [said(verdict) for verdict in pool.classify_many(tracks)] == expected


def test_a_device_computes_what_is_heard_and_nothing_twice(
    bundle: Path, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_CHEAP", 0.0)
    device = SharingDevice()
    with Cascade.open(bundle, device) as cascade:
        for track in tracks:
            device.sizes.clear()
            verdict = cascade.classify(track)
            # Silence is computed for jmla's head, which takes mert's embedding.
            silent = sum(name == "mert" and not count for name, count, _ in heard(verdict))
            assert sum(device.sizes) == sum(count for _, count, _ in heard(verdict)) + silent


def test_what_was_heard_after_all_windows_is_what_is_heard_at_once(bundle: Path, tracks: list[Path]) -> None:
    with Cascade.open(bundle) as listening, Cascade.open(bundle, policy="thorough") as thorough:
        for track in tracks:
            step, whole = listening.classify(track), thorough.classify(track)
            if step.reason_code == "last_stage":
                assert (step.top, said(step)[1]) == (whole.top, said(whole)[1])
            else:
                assert sum(count for _, count, _ in heard(step)) <= sum(count for _, count, _ in heard(whole))


def test_step_answers_are_what_the_policy_is_told_at_every_step(bundle: Path, tracks: list[Path]) -> None:
    with Cascade.open(bundle) as cascade:
        for path in tracks:
            verdict = cascade.classify(path)
            if verdict.failed:
                continue
            decoding, answers = cascade.step_answers(path)
            assert decoding > 0 and all(answer.milliseconds > 0 for answer in answers)
            assert sum(answer.resample_milliseconds for answer in answers) > 0
            given = {}
            for answer in answers:
                if answer.probabilities is not None:
                    given[answer.stage] = Answer(answer.stage, answer.probabilities, answer.outside)
                if given:
                    windows = None if answer.complete else answer.windows.heard
                    decision = decide(
                        cascade.plan.policy, [*given.values()], after=answer.stage, windows=windows, min_confidence=0.0
                    )
                    if decision.stop:
                        break
            if not given:
                assert verdict.status == "silent"
                continue
            assert answer.windows == verdict.stages[-1].windows and answer.excerpt == verdict.stages[-1].excerpt
            assert decision.confidence == verdict.confidence and decision.reason == verdict.reason
        with pytest.raises(TrackError, match="no such file") as missing:
            cascade.step_answers("absent.wav")
        assert missing.value.status == "missing"


def test_the_middle_is_heard_first_and_silent_windows_are_passed_over(bundle: Path) -> None:
    loud, quiet = (0.3 * np.random.default_rng(0).standard_normal((8, 8_000))).astype(np.float32), np.zeros((8, 8_000))
    with Cascade.open(bundle) as cascade:

        def embedding(*windows: int) -> NDArray[np.float32]:
            made = quiet.astype(np.float32)
            made[list(windows)] = loud[list(windows)]
            return cascade.embed_samples(made.ravel(), RATE)["mert"]

        def first(samples: NDArray[np.float32]) -> tuple[Verdict, NDArray[np.float32]]:
            verdict = cascade.classify_samples(samples.ravel(), RATE)
            return verdict, cascade._lane.workspace.embeddings["mert"].copy()

        counts = {}
        for silent in ([], [3], [3, 4], [3, 4, 2, 5]):
            made = loud.copy()
            made[silent] = 0.0
            verdict, got = first(made)
            counts[len(silent)] = heard(verdict)[0]
            order = [i for i in listening_order(8) if i not in silent][: heard(verdict)[0][1]]
            np.testing.assert_array_equal(got, embedding(*order))
        assert all(of == 8 for _, _, of in counts.values())


def test_a_track_of_few_windows_is_judged_by_the_last_step(bundle: Path) -> None:
    samples = (0.01 * np.random.default_rng(1).standard_normal(RATE)).astype(np.float32)
    policy = Policy(
        "p",
        "soft",
        (Step("mert", {"mert": 1.0}, 0.0, 1), Step("mert", {"mert": 1.0}, 0.0, 2), Step("mert", {"mert": 1.0})),
    )
    with Cascade.open(bundle, policy=policy) as cascade:
        one = cascade.classify_samples(samples, RATE)
        assert (heard(one), one.reason_code) == ([("mert", 1, 2)], "accepted")
        assert one.reason is not None and one.reason.endswith("> 0 after 1 window of mert")
    only_two = Policy("p", "soft", (Step("mert", {"mert": 1.0}, 0.0, 2), Step("mert", {"mert": 1.0})))
    with Cascade.open(bundle, policy=only_two) as cascade:
        verdict = cascade.classify_samples(samples, RATE)
        assert (heard(verdict), verdict.reason) == ([("mert", 2, 2)], "last stage of p")


SIZE = 200
"""Samples of a window, at 400 Hz: ten frames."""


class Rows:
    """The embeddings of an encoder that gives a window back as it is; at most ``most`` at a time."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: list[int] = []

    def __call__(self, fills: list[Fill], add: AddRows, parts: Parts) -> None:
        for first in range(0, len(fills), self.most):
            rows = np.empty((len(fills[first : first + self.most]), SIZE), np.float32)
            for row, fill in zip(rows, fills[first : first + self.most], strict=True):
                fill(row)
            self.sizes.append(len(rows))
            add(rows)


class InMemory:
    """A sound that needs no reading."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self.samples, self.rate = samples, 400

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, start: int, count: int) -> NDArray[np.float32]:
        return self.samples[start : start + count]

    def there(self, start: int, count: int) -> bool:
        return True

    def intact(self, start: int, count: int) -> bool:
        return True


@given(
    count=st.integers(1, 12),
    silent=st.sets(st.integers(0, 11)),
    upto=st.sets(st.integers(1, 13), max_size=4).map(sorted),
    most=st.integers(1, 13),
    ahead=st.booleans(),
)
def test_the_mean_after_any_steps_is_bit_by_bit_that_of_those_windows(
    count: int, silent: set[int], upto: list[int], most: int, ahead: bool
) -> None:
    samples = np.random.default_rng(count).standard_normal((count, SIZE)).astype(np.float32)
    samples[[i for i in silent if i < count]] = 0.0
    order = [i for i in listening_order(count) if i not in silent]
    rows, out = Rows(most), np.zeros(SIZE, np.float32)
    encoder = WindowedEncoder(Windows(SIZE, SIZE, "repeat", None), SIZE, rows, lambda: None, "fill", ahead=ahead)
    done = []
    for progress in encoder.encode(InMemory(samples.ravel()), out, Parts(), upto=upto):
        assert progress.of == count
        mean = RunningMean(SIZE)
        mean.add(samples[order[: progress.heard]])
        wanted = np.zeros(SIZE, np.float32)
        if progress.heard:
            mean.write(progress.heard, wanted)
        np.testing.assert_array_equal(out, wanted)
        done.append((progress.heard, progress.complete))
    assert done[-1] == (len(order), True)
    # Where the last window is silent, more might have followed after all that are heard.
    before = len(order) + (listening_order(count)[-1] in silent)
    assert [n for n, complete in done if not complete] == [n for n in upto if n < before]
    assert sum(rows.sizes) == len(order), "nothing is computed twice, and everything once"


@given(st.integers(1, 200))
def test_the_order_begins_in_the_middle_and_takes_each_window_once(count: int) -> None:
    order = listening_order(count)
    assert sorted(order) == list(range(count))
    distances = [abs(i - (count - 1) / 2) for i in order]
    assert distances == sorted(distances)
    assert order[:1] == ((count - 1) // 2,)


W = {"a": 1.0}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            [Step("a", W, 0.5, 3), Step("a", W, 0.5, 1), Step("a", W)],
            "windows: expected more than the 3 of the step before, got 1",
        ),
        (
            [Step("a", W, 0.5, 3), Step("a", W, 0.5, 3), Step("a", W)],
            "windows: expected more than the 3 of the step before, got 3",
        ),
        ([Step("a", W, None, 3)], "the last step comes after all windows of its stage; remove windows"),
        ([Step("a", W, 0.5), Step("a", W, 0.5, 1), Step("a", W)], "'a' has run before, on all of its windows"),
        (
            [Step("a", W, 0.5, 1), Step("b", W, 0.5), Step("a", W)],
            "the stage 'a' has run before 'b'; its steps follow one another",
        ),
        ([Step("a", W, None, 1), Step("a", W)], "needs accept; without it the steps that follow would never run"),
    ],
)
def test_steps_out_of_order_are_named(made: list[Step], message: str) -> None:
    faults = check(Policy("p", "soft", tuple(made)), ["a", "b"])
    assert any(message in fault for fault in faults), faults
    assert all(fault.startswith("steps[") for fault in faults)


def test_decide_takes_the_step_of_the_windows_heard() -> None:
    policy = Policy("p", "soft", (Step("a", W, 0.7, 1), Step("a", W, 0.5, 3), Step("a", W, 0.9), Step("b", {"b": 1.0})))
    said = [Answer("a", (0.6, 0.4))]
    assert policy.stages == ("a", "b")
    assert decide(policy, said, windows=1).reason == "0.6000 ≤ 0.7 after 1 window of a"
    assert decide(policy, said, windows=3).reason == "0.6000 > 0.5 after 3 windows of a"
    assert decide(policy, said).reason == "0.6000 ≤ 0.9 after a"
    with pytest.raises(ValueError, match="has no step after 2 windows of a"):
        decide(policy, said, windows=2)


@pytest.mark.parametrize(
    ("stage", "windows", "message"),
    [
        ("fma", 1, "step after 1 of fma's windows: the stage hears its excerpt at once; remove windows"),
        ("whole", 2, "step after 2 of whole's windows: the stage hears its excerpt at once; remove windows"),
        ("mert", 4, "the stage hears 4 windows at most, and after all of them anyway; expected windows from 1 to 3"),
        ("mert", 0, "Expected `int` >= 1"),
        ("mert", -1, "Expected `int` >= 1"),
        ("mert", 1.5, "Expected `int | str | null`, got `float`"),
        ("mert", True, "Expected `int | str | null`, got `bool`"),
        ("mert", "most", "Invalid enum value 'most'"),
        ("mert", 10**9, "Expected `int` <= 36000"),
    ],
)
def test_windows_that_a_stage_does_not_have_are_refused(tmp_path: Path, stage: str, windows: Any, message: str) -> None:
    stages = [bundles.fma_stage(), bundles.waveform_stage("whole", window=64_000), bundles.waveform_stage("mert")]
    made = steps(1, None, after=stage)
    made[0]["windows"] = windows
    root = bundles.make_bundle(tmp_path, stages, policies={"ladder": {"vote": "soft", "steps": made}})
    with pytest.raises(BundleError) as error:
        choose_policy(load(root))
    assert message in str(error.value)
    assert "bundle.yaml" in str(error.value) or "policies.ladder" in str(error.value)


def test_all_windows_may_be_said_and_full_tracks_have_any_number(tmp_path: Path) -> None:
    made = steps(1, 1_000, None)
    made[-1]["windows"] = "all"
    root = bundles.make_bundle(
        tmp_path,
        [bundles.waveform_stage("mert", excerpt={"full": True})],
        policies={"ladder": {"vote": "soft", "steps": made}},
    )
    assert [step.windows for step in choose_policy(load(root)).steps] == [1, 1_000, None]
    with pytest.raises(UsageError, match="remove windows"):
        choose_policy(load(root), Policy("mine", "soft", (Step("mert", {"mert": 1.0}, None, 1),)))
