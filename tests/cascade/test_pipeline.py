"""Lanes on one set of encoders: the same verdicts as one track after another, whatever finishes first."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import bundles
from edge_reclass import Cascade, CascadePool, Verdict, host
from edge_reclass.backends.ort.cpu import OrtBackend
from edge_reclass.cascade import opening
from edge_reclass.cascade.encoders.windowed import RunningMean
from edge_reclass.cascade.shared_batches import Fill, SharedGraph
from edge_reclass.cascade.windowing import fill_window
from edge_reclass.errors import DeviceError, EngineError, UsageError
from edge_reclass.installing import install_command
from lanes_device import SharingDevice, traced_peak

RATE = 16_000
SURE, TORN = (9.0, 0.0, 0.0), (0.0, 0.2, 0.1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fma, which is torn, and two encoders; the last decides."""
    stages = [bundles.fma_stage(), bundles.waveform_stage("mert"), bundles.waveform_stage("jmla", window=8_000)]
    root = tmp_path_factory.mktemp("bundle")
    return bundles.make_bundle(root, stages, biases={"fma": TORN, "mert": TORN, "jmla": SURE})


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten tracks of different loudness and of 1 to 5 windows; one file is missing, one is silent."""
    root = tmp_path_factory.mktemp("tracks")
    paths = []
    for i in range(10):
        random = np.random.default_rng(i)
        path = root / f"{i}.wav"
        soundfile.write(path, (0.01 * (i + 1) * random.standard_normal(RATE + i * 5_000)).astype(np.float32), RATE)
        paths.append(path)
    soundfile.write(root / "silent.wav", np.zeros(2 * RATE, np.float32), RATE)
    return [*paths[:3], root / "missing.wav", *paths[3:], root / "silent.wav"]


def said(verdict: Verdict) -> dict[str, Any]:
    """Everything in a verdict but what it took, at full precision."""
    stages = [(stage.name, stage.genre, stage.confidence, stage.excerpt, stage.windows) for stage in verdict.stages]
    names = ("path", "status", "genre", "confidence", "decided_by", "reason", "top", "error")
    return {name: getattr(verdict, name) for name in names} | {"stages": stages}


def plain(bundle: Path, tracks: list[Path]) -> list[dict[str, Any]]:
    with Cascade.open(bundle) as cascade:
        return [said(verdict) for verdict in cascade.classify_many(tracks)]


@pytest.mark.parametrize("lanes", [2, 3, 8])
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_shared_batches_give_the_verdicts_of_one_track_after_another(
    bundle: Path, tracks: list[Path], lanes: int, batch: int
) -> None:
    with CascadePool.open(lanes, bundle, SharingDevice(), batch=batch) as pool:
        assert [said(verdict) for verdict in pool.classify_many(tracks)] == plain(bundle, tracks)


def test_lanes_on_the_cpu_give_them_too(bundle: Path, tracks: list[Path]) -> None:
    with CascadePool.open(3, bundle) as pool:
        assert pool.batches == {}, "the CPU has nothing to gain from the windows of several tracks"
        assert [said(verdict) for verdict in pool.classify_many(tracks)] == plain(bundle, tracks)


def test_lanes_on_the_cpu_give_the_starter_s_verdicts_to_the_last_bit(tmp_path: Path) -> None:
    """A real encoder, whose sums depend on the threads of one graph: given those, not on the lanes."""
    paths = []
    for i in range(6):
        random = np.random.default_rng(i)
        paths.append(tmp_path / f"{i}.wav")
        seconds = np.arange((4 + i) * RATE) / RATE
        tones = sum(np.sin(2 * np.pi * 110 * (i + 2) * k * seconds) / k for k in range(1, 6))
        soundfile.write(paths[-1], 0.1 * tones + 0.02 * random.standard_normal(len(seconds)), RATE)
    answers = []
    for lanes in (1, 3):
        with CascadePool.open(lanes, threads=1) as pool:
            answers.append([said(verdict) for verdict in pool.classify_many(paths)])
    assert answers[0] == answers[1]
    assert any(len(answer["stages"]) > 1 for answer in answers[0]), "the encoder was asked"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("share", [False, True], ids=["own", "shared"])
def test_every_order_of_completion(
    bundle: Path, tracks: list[Path], order: tuple[int, ...], share: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tracks on three lanes; each may go on from its last stage only when its turn has come."""
    wanted = [str(path) for path in tracks[:3]]
    done = [threading.Event() for _ in order]
    finished: list[int] = []
    classify = Cascade.classify

    def in_turn(self: Cascade, path: str) -> Verdict:
        verdict = classify(self, path)
        me = wanted.index(str(path))
        turn = order.index(me)
        if turn > 0:
            assert done[order[turn - 1]].wait(120)
        finished.append(me)
        done[me].set()
        return verdict

    expected = plain(bundle, tracks[:3])
    monkeypatch.setattr(Cascade, "classify", in_turn)
    with CascadePool.open(3, bundle, SharingDevice() if share else "cpu") as pool:
        assert [said(verdict) for verdict in pool.classify_many(wanted)] == expected
    assert finished == list(order)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


def started(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target)
    thread.start()
    return thread


class Lanes:
    """A shared graph over the test's own device, and threads that ask it. ``window`` samples, ``dim`` numbers."""

    window, dim = 160, 8

    def __init__(self, folder: Path, most: int, device: SharingDevice) -> None:
        bundles.write_encoder(folder / "encoder.onnx", self.window, self.dim)
        self.device = device
        graph = device.open_graph(
            folder / "encoder.onnx",
            input_name="waveform",
            output_name="embedding",
            width=self.window,
            output_width=self.dim,
            max_batch=most,
        )
        self.shared = SharedGraph(graph, "mert")
        self.means: dict[int, np.ndarray] = {}
        self.errors: dict[int, BaseException] = {}
        self._threads: list[threading.Thread] = []

    def samples(self, lane: int, windows: int) -> np.ndarray:
        return np.random.default_rng(lane).normal(0, 0.1, windows * self.window).astype(np.float32)

    def fills(self, samples: np.ndarray) -> list[Fill]:
        return [partial(fill_window, samples, start, "repeat") for start in range(0, len(samples), self.window)]

    def ask(self, lane: int, windows: int) -> None:
        samples, mean = self.samples(lane, windows), RunningMean(self.dim)
        before = len(self.shared._pending)

        def run() -> None:
            try:
                self.shared.embed(self.fills(samples), mean.add)
                self.means[lane] = np.empty(self.dim, np.float32)
                mean.write(windows, self.means[lane])
            except BaseException as error:
                self.errors[lane] = error

        self._threads.append(started(run))
        if not self.device.gate.is_set():
            wait_for(lambda: len(self.shared._pending) == before + 1 or before == 0)

    def finish(self) -> None:
        self.device.gate.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()

    def expected(self, lane: int, windows: int) -> np.ndarray:
        rows = self.samples(lane, windows).reshape(windows, self.dim, -1)
        return np.log(1 + 1000 * np.abs(rows).mean(axis=2)).mean(axis=0)


@pytest.fixture
def lanes(tmp_path: Path) -> Iterator[Callable[..., Lanes]]:
    opened: list[Lanes] = []

    def make(most: int, fault: Any = None) -> Lanes:
        opened.append(Lanes(tmp_path, most, SharingDevice(fault)))
        return opened[-1]

    yield make
    for one in opened:
        one.finish()
        one.shared.close()


def held(lanes: Lanes) -> None:
    """The device is busy with one window of lane 0, and stays so until ``finish``."""
    lanes.device.gate.clear()
    lanes.ask(0, 1)
    wait_for(lambda: not lanes.shared._pending)


def test_windows_gather_while_the_device_works(lanes: Callable[..., Lanes]) -> None:
    work = lanes(8)
    held(work)
    for lane, windows in ((1, 3), (2, 3), (3, 5), (4, 1)):
        work.ask(lane, windows)
    work.finish()
    assert work.device.sizes == [1, 8, 4], "full batches, in the order of asking, a track's windows cut where need be"
    assert [n for n in work.shared.batches if n] == [1, 1, 1]
    for lane, windows in ((0, 1), (1, 3), (2, 3), (3, 5), (4, 1)):
        np.testing.assert_allclose(work.means[lane], work.expected(lane, windows), rtol=1e-5)
    assert work.device.users == {"edge-reclass-mert"}


def test_the_mean_is_the_same_however_it_was_cut(lanes: Callable[..., Lanes]) -> None:
    means = []
    for most in (1, 4, 7, 64):
        work = lanes(most)
        held(work)
        for lane, windows in ((1, 5), (2, 13)):
            work.ask(lane, windows)
        work.finish()
        means.append(work.means[2])
    for mean in means[1:]:
        np.testing.assert_array_equal(mean, means[0])


def test_windows_are_written_straight_into_the_device_s_input(lanes: Callable[..., Lanes]) -> None:
    rows = []
    work = lanes(4)

    def watched(row: np.ndarray) -> None:
        rows.append(row)
        row.fill(0.0)

    work.shared.embed([watched, watched], lambda rows: None)
    assert len(rows) == 2
    assert all(np.shares_memory(row, work.device.graphs[0].input) for row in rows)


def loud(level: float, error: Exception) -> Callable[[np.ndarray], None]:
    """Fails on every batch that has a sample above ``level``."""

    def fault(rows: np.ndarray) -> None:
        if np.abs(rows).max() > level:
            raise error

    return fault


@pytest.mark.parametrize("error", [EngineError("it broke"), MemoryError("no room"), ZeroDivisionError("an accident")])
def test_a_lane_that_fails_takes_no_neighbour_with_it(lanes: Callable[..., Lanes], error: Exception) -> None:
    work = lanes(16, loud(1.0, error))
    held(work)
    for lane in (1, 2, 3):
        work.ask(lane, 2)
    work.shared._pending[1].windows[0].args[0][5] = 2.0
    work.finish()
    assert work.errors == {2: error}
    for lane in (1, 3):
        np.testing.assert_allclose(work.means[lane], work.expected(lane, 2), rtol=1e-5)


def test_the_rest_of_a_failed_track_is_not_run(lanes: Callable[..., Lanes]) -> None:
    work = lanes(4, loud(1.0, EngineError("it broke")))
    held(work)
    work.ask(1, 12)
    work.shared._pending[0].windows[0].args[0][5] = 2.0
    work.ask(2, 1)
    work.finish()
    assert isinstance(work.errors[1], EngineError)
    assert work.device.sizes == [1, 4, 1]
    assert list(work.means) == [0, 2] or list(work.means) == [2, 0]


def test_a_lost_device_is_told_to_all_who_wait_and_who_come(lanes: Callable[..., Lanes]) -> None:
    lost = DeviceError("cudaErrorIllegalAddress")
    work = lanes(2, loud(1.0, lost))
    held(work)
    for lane in (1, 2, 3):
        work.ask(lane, 2)
    work.shared._pending[0].windows[0].args[0][5] = 2.0
    work.finish()
    assert work.errors == {1: lost, 2: lost, 3: lost}
    with pytest.raises(DeviceError, match="IllegalAddress"):
        work.shared.embed(work.fills(work.samples(4, 1)), lambda rows: None)
    assert work.device.sizes == [1, 2]


def test_closing_finishes_what_was_asked_for(lanes: Callable[..., Lanes]) -> None:
    work = lanes(2)
    held(work)
    work.ask(1, 5)
    closing = started(work.shared.close)
    wait_for(lambda: work.shared._closing)
    with pytest.raises(EngineError, match="closed"):
        work.shared.embed(work.fills(work.samples(4, 1)), lambda rows: None)
    work.finish()
    closing.join(120)
    np.testing.assert_allclose(work.means[1], work.expected(1, 5), rtol=1e-5)
    assert work.device.graphs[0].closed
    work.shared.close()


def test_a_lost_device_ends_the_run(bundle: Path, tracks: list[Path]) -> None:
    device = SharingDevice()

    def fault(rows: np.ndarray) -> None:
        if len(device.sizes) > 6:
            raise DeviceError("cudaErrorIllegalAddress in copy in")

    device.fault = fault
    got = []
    with pytest.raises(DeviceError, match="copy in"), CascadePool.open(2, bundle, device) as pool:
        for verdict in pool.classify_many(itertools.cycle(tracks)):
            got.append(verdict)
    assert {verdict.status for verdict in got} <= {"ok", "missing"}
    assert device.closed == 1
    with Cascade.open(bundle, SharingDevice(loud(-1.0, DeviceError("gone")))) as cascade, pytest.raises(DeviceError):
        cascade.classify(tracks[0])


def test_verdicts_that_there_are_outlive_a_lost_device(
    bundle: Path, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second track is lost once the others, which needed the device no more, are done; none behind it is begun."""
    classify = Cascade.classify
    others_done = threading.Barrier(3)

    def met(self: Cascade, path: str) -> Verdict:
        if path == "lost":
            others_done.wait(120)
            raise DeviceError("cudaErrorIllegalAddress")
        verdict = classify(self, path)
        others_done.wait(120)
        return verdict

    monkeypatch.setattr(Cascade, "classify", met)
    got = []
    with CascadePool.open(3, bundle) as pool, pytest.raises(DeviceError, match="IllegalAddress"):
        for verdict in pool.classify_many([str(tracks[0]), "lost", str(tracks[1])]):
            got.append(verdict.path)
    assert got == [str(tracks[0]), str(tracks[1])]


def test_paths_that_end_in_an_error_lose_no_track(bundle: Path, tracks: list[Path]) -> None:
    def paths() -> Iterator[Path]:
        yield from tracks[:3]
        raise OSError("the list broke off")

    for opened in (Cascade.open(bundle), CascadePool.open(2, bundle)):
        got = []
        with opened, pytest.raises(OSError, match="broke off"):
            for verdict in opened.classify_many(paths()):
                got.append(verdict.path)
        assert got == [str(path) for path in tracks[:3]]


@pytest.mark.parametrize("behind", [1, 30], ids=["all begun", "more to begin"])
def test_a_pool_that_is_closed_says_so_to_whoever_still_iterates(
    bundle: Path, tracks: list[Path], behind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = CascadePool.open(1, bundle)
    verdicts = pool.classify_many([tracks[0], *[tracks[1]] * behind, *[tracks[2]] * 30])
    assert next(verdicts).status == "ok"
    pool.close()
    with pytest.raises(EngineError, match="this pool is closed; open a new one"):
        list(verdicts)
    with pytest.raises(EngineError, match="closed"):
        list(pool.classify_many(tracks))


def test_an_abandoned_iterator_leaves_the_pool_usable(bundle: Path, tracks: list[Path]) -> None:
    with CascadePool.open(2, bundle, SharingDevice()) as pool:
        verdicts = pool.classify_many(itertools.cycle(tracks))
        next(verdicts)
        verdicts.close()
        assert [said(verdict) for verdict in pool.classify_many(tracks)] == plain(bundle, tracks)


def test_never_more_tracks_in_work_than_lanes(
    bundle: Path, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    working, most = [0], [0]
    lock = threading.Lock()
    classify = Cascade.classify

    def counted(self: Cascade, path: str) -> Verdict:
        with lock:
            working[0] += 1
            most[0] = max(most[0], working[0])
        try:
            return classify(self, path)
        finally:
            with lock:
                working[0] -= 1

    monkeypatch.setattr(Cascade, "classify", counted)
    with CascadePool.open(3, bundle, SharingDevice()) as pool:
        assert len(list(pool.classify_many(tracks * 3))) == 3 * len(tracks)
    assert most[0] <= 3


def test_weights_are_loaded_once_for_all_lanes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    open_session = OrtBackend._open_session

    def counted(self: OrtBackend, file: Path) -> Any:
        opened.append(file)
        return open_session(self, file)

    monkeypatch.setattr(OrtBackend, "_open_session", counted)
    with CascadePool.open(4, bundle):
        assert len(opened) == len(set(opened)) == 5


@pytest.mark.parametrize("share", [False, True], ids=["own", "shared"])
def test_lanes_allocate_nothing_that_grows_with_the_excerpt(bundle: Path, tmp_path: Path, share: bool) -> None:
    """Four lanes over tracks of 60 s: no lane comes near the size of one excerpt (10 MiB at 44.1 kHz)."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((70 * 44_100, 2))
    path = tmp_path / "long.wav"
    soundfile.write(path, noise.astype(np.float32), 44_100)
    del noise
    long = bundles.make_bundle(
        tmp_path / "long",
        [bundles.waveform_stage("mert"), bundles.waveform_stage("jmla", rate=24_000, window=24_000)],
        accept=1.0,
        excerpt={"start": "center", "seconds": 60.0},
    )
    with CascadePool.open(4, long, SharingDevice() if share else "cpu") as pool:
        peak = traced_peak(pool, path)
    assert peak < 8 * 2**20, f"{peak / 2**20:.1f} MiB"


def test_parts_say_what_a_track_took(bundle: Path, tracks: list[Path]) -> None:
    with Cascade.open(bundle) as cascade:
        (fma, mert, jmla) = cascade.classify(tracks[0]).stages
    assert [part.name for part in fma.parts] == ["resample", "features", "head", "policy"]
    assert [part.name for part in mert.parts] == ["resample", "fill", "run", "head", "policy"]
    assert [part.name for part in jmla.parts] == ["fill", "run", "head", "policy"], "its signal was there already"
    assert {part.clock for part in jmla.parts} == {"host"}
    with CascadePool.open(2, bundle, SharingDevice()) as pool:
        (_, shared, _) = next(pool.classify_many(tracks[:1])).stages
    assert [part.name for part in shared.parts] == ["resample", "batch", "head", "policy"]
    for stage in (fma, mert, jmla, shared):
        named = sum(part.milliseconds for part in stage.parts if part.name != "policy")
        assert 0 < named <= stage.milliseconds


def refusing(reasons: dict[str, Exception], cpu: Callable[..., Any]) -> Callable[..., Any]:
    def open_backend(device: str, *, threads: int, timed: bool = False) -> Any:
        if device in reasons:
            raise reasons[device]
        return cpu(device, threads=threads, timed=timed)

    return open_backend


def test_auto_says_why_it_took_no_other_device(
    bundle: Path, tracks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_why_no_gpu", lambda: None)
    reasons = {
        "tensorrt": DeviceError("no TensorRT: install it with  pip install"),
        "cuda": DeviceError("the session fell back to the CPU"),
    }
    monkeypatch.setattr(opening, "open_backend", refusing(reasons, opening.open_backend))
    with Cascade.open(bundle, "auto") as cascade:
        assert cascade.device == "cpu"
        assert len(cascade.notes) == 2
        assert cascade.notes[0].startswith("not tensorrt: no TensorRT: install it with")
        assert cascade.notes[1] == "not cuda: the session fell back to the CPU"
        assert cascade.classify(tracks[0]).status == "ok"
    for name, error in reasons.items():
        with pytest.raises(type(error)):
            Cascade.open(bundle, name)


_BUSY = """
import os, signal, sys, threading, time
from edge_reclass import Cascade, CascadePool
from edge_reclass.cli import main
from edge_reclass.installing import install_command

classify, close, closing = Cascade.classify, CascadePool.close, threading.Event()
partial = sys.argv[sys.argv.index("-o") + 1] + ".partial"

def interrupt():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

def busy(self, path):
    if not os.fspath(path).endswith("1.wav"):
        return classify(self, path)
    while not os.path.exists(partial) or not os.path.getsize(partial):  # the verdict before
        time.sleep(0.01)
    interrupt()
    closing.wait()
    time.sleep(0.3)  # close waits for this lane
    interrupt()
    graph = self._lane.stages[1]._head
    while True:  # ONNX Runtime aborts where Python takes its threads away
        graph.run(1)

def told(self, timeout=None):
    closing.set()
    return close(self, timeout)

signal.signal(signal.SIGINT, signal.default_int_handler)
Cascade.classify, CascadePool.close = busy, told
main()
"""


def test_a_second_interrupt_waits_for_no_lane_and_keeps_what_there_is(
    bundle: Path, tracks: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "verdicts.jsonl"
    given = ["--device", "cpu", "--jobs", "2", "--bundle", bundle, "-f", "jsonl", "-o", output, *tracks[:2]]
    done = subprocess.run(
        [sys.executable, "-c", _BUSY, "classify", *map(str, given)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == f"interrupted after 1 of 2 tracks; their verdicts are in {output}.partial"
    assert len((tmp_path / "verdicts.jsonl.partial").read_text().splitlines()) == 1


class FailingDevice(SharingDevice):
    """Can be reached; its first graph cannot be opened."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__()
        self.name, self.error = name, error

    def open_graph(self, file: Path, **options: Any) -> Any:
        raise self.error


OPENERS = {
    "one cascade": lambda bundle, device: Cascade.open(bundle, device),
    "one lane": lambda bundle, device: CascadePool.open(1, bundle, device),
    "two lanes": lambda bundle, device: CascadePool.open(2, bundle, device),
}


@pytest.mark.parametrize("how", OPENERS)
@pytest.mark.parametrize(
    ("error", "told", "explicit"),
    [
        (DeviceError("fell back to the CPU"), "fell back to the CPU", DeviceError),
        (EngineError("it does not fit"), "it does not fit", EngineError),
        (MemoryError("no room on the GPU"), r"not enough memory .*no room on the GPU.*; lower .*batch", EngineError),
    ],
    ids=["device", "engine", "memory"],
)
def test_a_device_whose_encoder_cannot_be_opened(
    bundle: Path, how: str, error: Exception, told: str, explicit: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``auto`` goes on to the next, however many lanes are opened; by name it is an error with its own exit code."""
    opened: list[FailingDevice] = []
    on_cpu = opening.open_backend

    def open_backend(device: str, *, threads: int, timed: bool = False) -> Any:
        if device == "cpu":
            return on_cpu(device, threads=threads, timed=timed)
        opened.append(FailingDevice(device, error))
        return opened[-1]

    monkeypatch.setattr(opening, "_why_no_gpu", lambda: None)
    monkeypatch.setattr(opening, "DEVICES", ("cuda", "cpu"))
    monkeypatch.setattr(opening, "open_backend", open_backend)
    with OPENERS[how](bundle, "auto") as classifier:
        assert classifier.device == "cpu"
        assert [re.search(f"^not cuda: .*{told}", note) is not None for note in classifier.notes] == [True]
    with pytest.raises(explicit, match=told):
        OPENERS[how](bundle, "cuda")
    assert [device.closed for device in opened] == [1, 1]


def test_auto_passes_a_gpu_over_that_has_no_file_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = bundles.waveform_stage("mert")
    root = bundles.make_bundle(tmp_path, [stage])

    def open_backend(device: str, *, threads: int, timed: bool = False) -> Any:
        gpu = SharingDevice() if device == "cuda" else OrtBackend(threads)
        gpu.precisions = ("fp16",) if device == "cuda" else gpu.precisions
        return gpu

    monkeypatch.setattr(opening, "_why_no_gpu", lambda: None)
    monkeypatch.setattr(opening, "DEVICES", ("cuda", "cpu"))
    monkeypatch.setattr(opening, "open_backend", open_backend)
    with Cascade.open(root, "auto") as cascade:
        assert cascade.device == "cpu"
        assert re.search("not cuda: .*expected one of fp16 for this device, got fp32", cascade.notes[0])
    with pytest.raises(EngineError, match="got fp32; export the encoder in one of them"):
        Cascade.open(root, "cuda")


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_onnxruntime_no_device_can_be_used(bundle: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exit code that doctor gives, too."""
    monkeypatch.setattr(opening, "_why_no_gpu", lambda: "no NVIDIA GPU")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError, match="ONNX Runtime cannot be imported .*" + re.escape(install_command("cpu"))):
        Cascade.open(bundle, device)


def test_auto_without_a_gpu_says_so_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def none() -> None:
        raise DeviceError("no NVIDIA GPU: none")

    monkeypatch.setattr(host, "probe_gpu", none)
    with CascadePool.open(None, bundle, "auto") as pool:
        assert (pool.device, pool.notes) == ("cpu", ("no NVIDIA GPU: none",))


def test_auto_does_not_hide_a_broken_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_why_no_gpu", lambda: "no NVIDIA GPU")
    root = bundles.make_bundle(tmp_path, [bundles.waveform_stage("mert")])
    (root / "encoders/mert.fp32.onnx").write_bytes(b"not it")
    with pytest.raises(Exception, match=r"sha256|bytes"):
        Cascade.open(root, "auto")


def test_a_backend_that_was_handed_over_is_closed_once(bundle: Path) -> None:
    device = SharingDevice()
    with Cascade.open(bundle, device) as cascade:
        assert cascade.device == "test"
    cascade.close()
    assert device.closed == 1
    assert all(graph.closed for graph in device.graphs)
    refused = SharingDevice()
    with pytest.raises(UsageError, match="jobs"):
        CascadePool.open(0, bundle, refused)
    assert refused.closed == 1


def test_graphs_are_closed_before_their_device(bundle: Path) -> None:
    class Ordered(SharingDevice):
        def close(self) -> None:
            assert self.graphs, "nothing was opened on it"
            assert all(graph.closed for graph in self.graphs)
            super().close()

    for opener in (
        Cascade.open,
        lambda *given: CascadePool.open(1, *given),
        lambda *given: CascadePool.open(2, *given),
    ):
        device = Ordered()
        opener(bundle, device).close()
        assert device.closed == 1


def test_stages_are_closed_where_the_workspace_finds_no_memory(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(plan: Any) -> None:
        raise MemoryError("Unable to allocate 880. MiB")

    monkeypatch.setattr(opening, "Workspace", full)
    for opener in (
        Cascade.open,
        lambda *given: CascadePool.open(1, *given),
        lambda *given: CascadePool.open(2, *given),
    ):
        device = SharingDevice()
        with pytest.raises(EngineError, match=r"not enough memory .*880.*; lower max_rate"):
            opener(bundle, device)
        assert device.graphs
        assert all(graph.closed for graph in device.graphs)
        assert device.closed == 1
