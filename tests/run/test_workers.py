"""Worker processes: the verdicts are those of lanes, and whatever a decoder does costs its own track alone."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from onnx import helper

import bundles
import synth
from command import run
from edge_reclass import CascadePool, Verdict, WorkerLimits, WorkerPool
from edge_reclass.bundle import load
from edge_reclass.bundle.loading import starter_path
from edge_reclass.errors import DeviceError, EngineError, UsageError, WorkerError
from edge_reclass.run.workers.pool import default_workers
from lanes_device import SharingDevice
from worker_hooks import HOOK

RATE = 44_100
VARIANTS = int(os.environ.get("EDGE_RECLASS_VARIANTS", "24"))
"""Damaged files that are run through the workers."""

TIMED = {"milliseconds", "at"}


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: untimed(each) for key, each in value.items() if key not in TIMED}
    return [untimed(each) for each in value] if isinstance(value, list) else value


def same(verdicts: list[Verdict], others: list[Verdict]) -> None:
    for one, other in zip(verdicts, others, strict=True):
        assert untimed(one.to_dict()) == untimed(other.to_dict())


def gone(pid: int) -> bool:
    """True if there is no such process, or it is only waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        if task.name != str(pid)
        for child in (task / "children").read_text().split()
    ]


@pytest.fixture(scope="module")
def stepwise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stages, of which the first and the last are fma518, one in windows; steps after fewer windows."""
    windowed = {"window_samples": 22_050, "hop_samples": 22_050}
    stages = [
        bundles.waveform_stage("mert"),
        bundles.fma_stage("fma", encoder=windowed, loudness=-20),
        bundles.waveform_stage("jmla", rate=8_000, window=8_000, excerpt={"full": True}),
        bundles.fma_stage("all", rate="native", head={"inputs": ["mert", "all"]}),
    ]
    steps = [
        {"after": "mert", "windows": 1, "accept": 0.7},
        {"after": "mert", "windows": 3, "accept": 0.6},
        {"after": "mert", "accept": 0.55},
        {"after": "fma", "windows": 2, "accept": 0.5},
        {"after": "fma", "accept": 0.5},
        {"after": "jmla", "windows": 2, "accept": 0.45},
        {"after": "jmla", "accept": 0.45},
        {"after": "all"},
    ]
    names = ("mert", "fma", "jmla", "all")
    weighed = [step | {"weights": dict.fromkeys(names[: names.index(str(step["after"])) + 1], 1.0)} for step in steps]
    root = tmp_path_factory.mktemp("stepwise")
    bundles.make_bundle(root, stages, policies={"ladder": {"vote": "soft", "steps": weighed}})
    weights = np.random.default_rng(1).normal(0, 0.15, (8, 3)).astype(np.float32)
    node = helper.make_node("MatMul", ["features", "W"], ["logits"])
    bundles.write_graph(root / "heads/mert.onnx", ("features", 8), ("logits", 3), [node], {"W": weights})
    bundles.rehash(root)
    return root


def write_all(folder: Path) -> list[Path]:
    """Good, odd and bad files."""
    folder.mkdir(parents=True, exist_ok=True)
    signal_ = synth.music(9.0)
    for power, suffix in enumerate((".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")):
        synth.write(folder / f"good{suffix}", signal_ / 3**power, 48_000 if suffix == ".opus" else RATE)
    half = signal_.copy()
    half[3 * RATE : 6 * RATE] = 0.0
    synth.write(folder / "quiet middle.wav", half, RATE)
    synth.write(folder / "silent.wav", np.zeros_like(signal_), RATE)
    synth.write(folder / "short.wav", signal_[: RATE // 2], RATE)
    soundfile.write(folder / "high.wav", synth.music(5.0, 96_000), 96_000)
    soundfile.write(folder / "out of phase.wav", np.stack([signal_[:, 0], -signal_[:, 0]], axis=1), RATE)
    for place in (0.2, 5.0):
        spoilt = signal_.copy()
        spoilt[round(place * RATE), 0] = np.nan
        soundfile.write(folder / f"nan {place}.wav", spoilt, RATE, subtype="FLOAT")
    (folder / "chained.ogg").write_bytes((folder / "good.ogg").read_bytes() * 2)
    for suffix in (".mp3", ".flac", ".ogg"):
        whole = (folder / f"good{suffix}").read_bytes()
        (folder / f"cut{suffix}").write_bytes(whole[: len(whole) * 2 // 3])
        middle = len(whole) // 2
        (folder / f"hole{suffix}").write_bytes(whole[:middle] + bytes(len(whole) // 4) + whole[middle * 3 // 2 :])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.mp3").write_text("this is no music\n" * 99)
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    os.mkfifo(folder / "pipe.wav")
    (folder / os.fsdecode(b"not utf-8 \xe9.flac")).write_bytes((folder / "good.flac").read_bytes())
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_all(tmp_path_factory.mktemp("files"))


def test_verdicts_are_those_of_lanes(stepwise: Path, files: list[Path]) -> None:
    options: dict[str, Any] = {"max_seconds": 11.0, "min_confidence": 0.0}
    with CascadePool.open(2, stepwise, **options) as lanes:
        expected = list(lanes.classify_many(files))
    with WorkerPool.open(2, stepwise, **options) as workers:
        same(list(workers.classify_many(files)), expected)
    with WorkerPool.open(2, stepwise, SharingDevice(), **options) as workers:  # whose lanes' windows run together
        same(list(workers.classify_many(files)), expected)
    statuses = Counter(str(verdict.status) for verdict in expected)
    assert {"ok", "silent", "too_short", "too_long", "corrupt", "empty", "missing", "unsupported"} <= set(statuses)
    ends = {(v.stages[-1].name, v.stages[-1].windows) for v in expected if v.status == "ok"}
    assert len(ends) >= 3, f"too few ends of the cascade are compared: {ends}"


@pytest.mark.parametrize("policy", list(load(starter_path()).manifest.policies))
def test_verdicts_of_the_starter_are_those_of_lanes(policy: str, tmp_path: Path) -> None:
    paths = []
    for number, suffix in enumerate((".mp3", ".m4a")):
        paths.append(tmp_path / f"{number}{suffix}")
        synth.write(paths[-1], synth.music(5.0 + 4 * number, seed=number), RATE)
    with CascadePool.open(1, policy=policy) as lanes:
        expected = list(lanes.classify_many(paths))
    with WorkerPool.open(1, policy=policy) as workers:
        same(list(workers.classify_many(paths)), expected)
    assert {verdict.status for verdict in expected} <= {"ok", "unsure"}


POISON = {
    "segfault": ("crashed", "SIGSEGV"),
    "abort": ("crashed", r"SIGABRT .*malloc\(\): corrupted top size"),
    "exit": ("crashed", "exit code 7"),
    "babble": ("crashed", "worker process died"),
    "hang": ("timeout", r"not done after \d s"),
    "spin": ("timeout", r"not done after \d s"),
    "memory": ("out_of_memory", "memory"),
    "raise": ("error", "RuntimeError: nobody foresaw this"),
    "later segfault": ("crashed", "SIGSEGV"),
    "later hang": ("timeout", r"not done after \d s"),
    "later memory": ("out_of_memory", "memory"),
}


@pytest.fixture
def poisoned(tmp_path: Path) -> list[Path]:
    """Good tracks, and between them those that take their worker with them; those that time out are short of bytes."""
    good = synth.write(tmp_path / "good.wav", synth.music(9.0) / 50, RATE)  # so soft that the first stage decides none
    small = synth.write(tmp_path / "small.ogg", synth.music(9.0) / 50, RATE)
    paths = []
    for number, word in enumerate(POISON):
        for name in (f"good {number}", word):
            paths.append(tmp_path / f"{name} .wav")
            shutil.copy(small if POISON.get(name, ("",))[0] == "timeout" else good, paths[-1])
    return paths


QUICK = WorkerLimits(seconds=2.0, per_second=0.0, bytes_per_second=30_000, memory=256 << 20)
"""What is as large as a good track has the better part of a minute, however busy the machine is."""


def test_what_a_decoder_does_costs_its_own_track(stepwise: Path, poisoned: list[Path]) -> None:
    with CascadePool.open(1, stepwise) as lanes:
        expected = {path: lanes.classify(path) for path in poisoned if path.name.startswith("good")}
    with WorkerPool.open(2, stepwise, limits=QUICK, prepare=HOOK) as pool:
        verdicts = list(pool.classify_many(poisoned))
    assert [verdict.path for verdict in verdicts] == [str(path) for path in poisoned]
    for path, verdict in zip(poisoned, verdicts, strict=True):
        if path in expected:
            same([verdict], [expected[path]])
        else:
            status, message = POISON[path.stem.strip()]
            assert verdict.status == status, verdict
            assert re.search(message, verdict.error or ""), verdict.error
            assert verdict.failed
            assert verdict.size == path.stat().st_size


def test_a_worker_that_a_track_before_has_spoilt_is_not_held_against_a_track(
    stepwise: Path, poisoned: list[Path]
) -> None:
    spoilt = shutil.copy(poisoned[0], poisoned[0].with_name("spoilt .wav"))
    with WorkerPool.open(1, stepwise, prepare=HOOK) as pool:
        first, second = pool.classify_many([poisoned[0], spoilt])
        assert first.status == second.status == "ok"
        assert untimed(first.to_dict())["top"] == untimed(second.to_dict())["top"]


def test_a_track_alone_has_a_worker_of_its_own(stepwise: Path, poisoned: list[Path]) -> None:
    spoilt = shutil.copy(poisoned[0], poisoned[0].with_name("spoilt .wav"))
    crashing = next(path for path in poisoned if path.name.startswith("segfault"))
    with WorkerPool.open(1, stepwise, prepare=HOOK) as pool:
        assert pool.classify(poisoned[0]).ok
        assert pool.classify_alone(spoilt).ok
        assert pool.classify_alone(crashing).status == "crashed"
        assert pool.classify_alone(poisoned[0]).ok


def test_workers_are_replaced_after_so_many_tracks(stepwise: Path, poisoned: list[Path]) -> None:
    with WorkerPool.open(1, stepwise, limits=WorkerLimits(tracks=2)) as pool:
        pids = []
        for _ in range(5):
            assert pool.classify(poisoned[0]).ok
            pids.append(pool.pids[0])
        assert [pids.index(pid) for pid in pids] == [0, 0, 2, 2, 4]
        assert gone(pids[0])
    assert gone(pids[-1])


def test_a_longer_track_may_take_longer(stepwise: Path, tmp_path: Path) -> None:
    limits = WorkerLimits(seconds=30, per_second=0.25, most_seconds=100, bytes_per_second=1e6)
    assert limits.allowed(0) == 30
    assert limits.allowed(0, 40.0) == 40
    assert limits.allowed(50_000_000, 40.0) == 80
    assert limits.allowed(0, 1e12) == limits.allowed(10**15) == 100
    sleepy = tmp_path / "later sleep .wav"  # for 6 s, once it is known how long the track is
    synth.write(sleepy, synth.music(9.0) / 50, RATE)
    for per_second, status in ((0.0, "timeout"), (10.0, "ok")):
        with WorkerPool.open(1, stepwise, limits=WorkerLimits(4.0, per_second), prepare=HOOK) as pool:
            assert pool.classify(sleepy).status == status


def test_a_pool_that_is_closed_ends_workers_that_hang(stepwise: Path, poisoned: list[Path]) -> None:
    hanging = next(path for path in poisoned if path.name.startswith("hang"))
    pool = WorkerPool.open(2, stepwise, prepare=HOOK)
    future = pool.submit(hanging)
    wait_until(future.running)
    pids = pool.pids
    began = time.monotonic()
    assert pool.close(timeout=0.2)
    assert time.monotonic() - began < 60  # else it hangs for ever
    with pytest.raises(DeviceError, match="stopped"):
        future.result()
    assert all(gone(pid) for pid in pids)
    assert pool.close()


def test_a_worker_that_does_not_start_is_an_error_of_the_run(stepwise: Path) -> None:
    with pytest.raises(EngineError, match=r"does not start: exit code 1: ModuleNotFoundError.*no_such_module"):
        WorkerPool.open(2, stepwise, prepare="no_such_module:nothing")
    with pytest.raises(UsageError, match="workers: expected at least 1, got 0"):
        WorkerPool.open(0, stepwise)


def test_a_worker_that_cannot_be_started_again_ends_the_run(
    stepwise: Path, poisoned: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No track is to blame, so none gets a verdict for it."""
    with WorkerPool.open(1, stepwise, limits=WorkerLimits(tracks=1)) as pool:
        verdicts = pool.classify_many([poisoned[0]] * 4)
        assert next(verdicts).ok
        monkeypatch.setattr(sys, "executable", "/nowhere/python")  # as when it is updated meanwhile
        with pytest.raises(WorkerError, match="cannot be started"):
            for verdict in verdicts:  # one may have begun before
                assert verdict.ok


def test_a_worker_that_the_system_killed_was_short_of_memory(stepwise: Path, poisoned: list[Path]) -> None:
    hanging = next(path for path in poisoned if path.name.startswith("hang"))
    with WorkerPool.open(1, stepwise, prepare=HOOK) as pool:
        future = pool.submit(hanging)
        wait_until(hanging.with_suffix(".opened").exists)
        os.kill(pool.pids[0], signal.SIGKILL)
        verdict = future.result()
    assert verdict.status == "out_of_memory" and "SIGKILL" in str(verdict.error)


def test_an_idle_worker_keeps_no_track_open(stepwise: Path, files: list[Path]) -> None:
    """Else the disk that the track lies on could not be unmounted."""
    with WorkerPool.open(1, stepwise) as pool:
        for path in files:
            pool.classify(path)
            opened = [one.readlink() for one in Path(f"/proc/{pool.pids[0]}/fd").iterdir()]
            assert path not in opened


def test_nothing_lies_in_dev_shm_and_a_worker_has_no_onnxruntime(stepwise: Path, poisoned: list[Path]) -> None:
    def shared(pid: int) -> set[str]:
        """Files in /dev/shm that a process has in its memory."""
        return set(re.findall(r"/dev/shm/\S+", Path(f"/proc/{pid}/maps").read_text()))

    before = shared(os.getpid())
    with WorkerPool.open(1, stepwise) as pool:
        assert pool.classify(poisoned[0]).ok
        (pid,) = pool.pids
        assert not shared(pid) and shared(os.getpid()) <= before
        mapped = Path(f"/proc/{pid}/maps").read_text()
        assert "libsndfile" in mapped
        assert "onnxruntime" not in mapped
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)
        assert re.search(r"Max address space +\d+ +\d+ ", limits)


@pytest.mark.parametrize(("memory", "cpus", "expected"), [(4, 4, 2), (8, 6, 4), (16, 8, 8), (64, 12, 12), (4, 1, 1)])
def test_workers_by_default(monkeypatch: pytest.MonkeyPatch, memory: int, cpus: int, expected: int) -> None:
    monkeypatch.setattr("edge_reclass.host.usable_memory", lambda: memory << 30)
    monkeypatch.setattr("edge_reclass.host.usable_cpus", lambda: cpus)
    assert default_workers() == expected


# The command.


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edge_reclass", "classify", *map(str, arguments)]


HOOKED = f"""
import sys
from edge_reclass.run.workers import pool
opened = pool.WorkerPool.open.__func__
pool.WorkerPool.open = classmethod(lambda *a, **k: opened(*a, **k, prepare={HOOK!r}))
import edge_reclass.cli
edge_reclass.cli.main()
"""


@pytest.fixture
def hung(stepwise: Path, poisoned: list[Path]) -> Iterator[subprocess.Popen[str]]:
    """A run that has written a verdict, and whose workers both hang."""
    folder = poisoned[0].parent
    paths = [poisoned[0], folder / "hang .wav", shutil.copy(folder / "hang .wav", folder / "hang too.wav")]
    arguments = ["classify", "--bundle", stepwise, "-f", "jsonl", "--workers", 2, *paths]
    process = subprocess.Popen(
        [sys.executable, "-c", HOOKED, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["status"] == "ok"
    yield process
    process.kill()
    process.communicate()


def test_killing_the_run_leaves_no_worker(hung: subprocess.Popen[str]) -> None:
    workers = children(hung.pid)
    assert len(workers) == 2
    hung.kill()
    hung.wait()
    wait_until(lambda: all(gone(pid) for pid in workers))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once_and_quietly(hung: subprocess.Popen[str], number: signal.Signals) -> None:
    workers = children(hung.pid)
    for pid in workers:
        os.kill(pid, number)  # as a service manager does, to all processes of the service
    hung.send_signal(number)
    assert hung.stderr is not None
    said = ""
    while "waiting at most" not in said:
        said += hung.stderr.readline() or pytest.fail(said)
    assert not any(gone(pid) for pid in workers)
    hung.send_signal(number)
    rest, errors = hung.communicate(timeout=120)
    assert hung.returncode == 128 + number
    assert not rest
    assert "Traceback" not in said + errors
    wait_until(lambda: all(gone(pid) for pid in workers))


def test_the_command_takes_workers_or_jobs(stepwise: Path, poisoned: list[Path], tmp_path: Path) -> None:
    done = run("classify", "--workers", 2, "--jobs", 2, poisoned[0])
    assert done.returncode == 2
    assert "--jobs" in done.stderr
    assert "--workers" in done.stderr
    said = []
    for given in (["--workers", 1], ["--jobs", 2], ["--workers", 0]):
        done = run("classify", "--bundle", stepwise, "-f", "jsonl", *given, *poisoned[:2])
        assert done.returncode == 0, done.stderr
        said.append([untimed(json.loads(line)) for line in done.stdout.splitlines()])
    assert said[0] == said[1] == said[2]


def test_many_tracks_are_read_by_workers_unless_told(
    stepwise: Path, poisoned: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    began = []
    monkeypatch.setattr(
        "edge_reclass.run.workers.pool.WorkerPool.open", lambda *_, **__: began.append(1) or pytest.skip("workers")
    )
    assert run("classify", "--bundle", stepwise, *poisoned[:7]).returncode == 0
    assert run("classify", "--bundle", stepwise, "--jobs", 1, *poisoned[:8]).returncode == 0
    assert not began
    with pytest.raises(pytest.skip.Exception):
        run("classify", "--bundle", stepwise, *poisoned[:8])
    assert began


# Damaged files, many of them.


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """A file as transfers and disks leave it: cut, bytes flipped, blocks of zeros, a part of another place."""
    content = bytearray(whole)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(content) or 1)
        kind = chance.choice(("cut", "flip", "zeros", "head", "move"))
        if kind == "cut":
            del content[at:]
        elif kind == "flip":
            for _ in range(chance.randint(1, 50)):
                if content:
                    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        elif kind == "zeros":
            length = min(chance.choice((512, 4096, 65536)), len(content) - at)
            content[at : at + length] = bytes(length)
        elif kind == "head":
            for _ in range(chance.randint(1, 8)):
                if content:
                    content[chance.randrange(min(len(content), 256))] = chance.randrange(256)
        else:
            content[at:at] = content[::-1][: chance.randint(1, 5000)]
    return bytes(content)


def test_no_damaged_file_ends_a_run(stepwise: Path, files: list[Path], tmp_path: Path) -> None:
    chance = random.Random(15)
    good = [path for path in files if path.name.startswith("good.")]
    assert len(good) == 6
    paths = []
    for number in range(VARIANTS):
        whole = good[number % len(good)]
        paths.append(tmp_path / f"{number}{whole.suffix}")
        paths[-1].write_bytes(damaged(whole.read_bytes(), chance))
        if number % 10 == 9:
            paths.append(good[number % len(good)])
    with WorkerPool.open(2, stepwise, min_confidence=0.0) as pool:
        verdicts = list(pool.classify_many(paths))
        expected = {path: pool.classify(path) for path in good}
    assert [verdict.path for verdict in verdicts] == [str(path) for path in paths]
    counts = Counter(str(verdict.status) for verdict in verdicts)
    print(f"{VARIANTS} damaged files: {dict(counts)}")
    same([v for v in verdicts if Path(v.path) in expected], [expected[p] for p in paths if p in expected])
    assert not counts["error"], [verdict.error for verdict in verdicts if verdict.status == "error"]
