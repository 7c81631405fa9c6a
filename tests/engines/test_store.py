"""Keys, folders and refusals of engines, without TensorRT or a GPU."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_reclass.engines.record import (
    EngineKey,
    EngineRecord,
    Profile,
    Target,
    describe_target,
    differences,
    target_for,
)
from edge_reclass.engines.store import PLAN, RECORD, StoredEngine, engines_folder, read_engine, stored_engines, survey
from edge_reclass.engines.trust import default_store, make_secret
from edge_reclass.errors import DeviceError, EngineError, UsageError
from edge_reclass.host.gpu import Gpu

ORIN = Gpu("Orin", "8.7", "l4t-36.4.3")
TARGET = Target("tensorrt", "10.3.0", "linux-aarch64", "8.7", "Orin", "l4t-36.4.3")
KEY = EngineKey("a" * 64, TARGET, Profile("waveform", 16_000, 1, 6, 7))
CONTENT = b"compiled"
BUNDLE = Path("/srv/my bundle")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """The folder of one bundle's engines, in a store of its own."""
    (tmp_path / "digest").mkdir()
    return tmp_path / "digest"


def changed(key: EngineKey = KEY, *, profile: dict[str, Any] | None = None, **parts: Any) -> EngineKey:
    """``key`` with other parts; those of the target by their names."""
    own = {name: parts.pop(name) for name in ("onnx_sha256", "flags") if name in parts}
    return msgspec.structs.replace(
        key,
        target=msgspec.structs.replace(key.target, **parts),
        profile=msgspec.structs.replace(key.profile, **(profile or {})),
        **own,
    )


def store(folder: Path, key: EngineKey = KEY, *, content: bytes = CONTENT, **fields: Any) -> StoredEngine:
    folder.mkdir(parents=True, exist_ok=True)
    record = EngineRecord(
        **{
            "format": 1,
            "key": key,
            "bundle": "b",
            "stage": "mert",
            "precision": "fp16",
            "file": "encoders/mert.fp16.onnx",
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "not_verified": "no GPU",
            **fields,
        }
    ).signed_by(make_secret(folder.parent))
    engine = StoredEngine(folder / key.name, record)
    engine.folder.mkdir(parents=True)
    (engine.folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    if record.rejected is None:
        engine.plan.write_bytes(content)
    return engine


def found(folder: Path, key: EngineKey = KEY, **options: Any) -> tuple[str, str]:
    state = survey(folder, key, bundle=BUNDLE, stage="mert", precision="fp16", **options)
    return state.status, state.reason


def test_the_folder_of_a_key_is_readable_and_stable() -> None:
    assert KEY.name == "tensorrt-10.3.0-sm87-" + KEY.name[-16:]
    assert KEY.name == msgspec.json.decode(msgspec.json.encode(KEY), type=EngineKey).name
    assert "/" not in changed(version="10.3/../x").name
    # Written down, so that a change of the key's form cannot silently orphan every engine in the field.
    assert KEY.name[-16:] == "118986df49d63dd0"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"onnx_sha256": "b" * 64}, "the ONNX file has changed: built from aaaaaaaaaaaa, now bbbbbbbbbbbb"),
        ({"flavour": "tensorrt-rtx"}, "flavour: built for tensorrt, here tensorrt-rtx"),
        ({"version": "10.16.1"}, "TensorRT version: built for 10.3.0, here 10.16.1"),
        ({"platform": "linux-x86_64"}, "platform: built for linux-aarch64, here linux-x86_64"),
        ({"sm": "11.0"}, r"compute capability \(SM\): built for 8.7, here 11.0"),
        ({"gpu": "Thor"}, "GPU: built for Orin, here Thor"),
        ({"driver": "l4t-36.5.0"}, "driver: built for l4t-36.4.3, here l4t-36.5.0"),
        ({"profile": {"width": 8_000}}, r"profile: built for waveform\[1/6/7, 16000\], wanted waveform\[1/6/7, 8000\]"),
        ({"profile": {"input": "audio"}}, r"profile: built for waveform\[1/6/7, 16000\], wanted audio"),
        ({"flags": ("strongly-typed",)}, "flags: built with strongly-typed, no-tf32, wanted strongly-typed"),
    ],
)
def test_every_part_of_the_key_counts(part: dict[str, Any], words: str, tmp_path: Path) -> None:
    other = changed(**part)
    assert other.name != KEY.name
    store(tmp_path)
    status, reason = found(tmp_path, other)
    assert status == "stale"
    assert re.search(words, reason), reason
    assert len(differences(KEY, other)) == 1


@pytest.mark.parametrize("largest", [1, 4, 16])
def test_another_largest_batch_serves_unless_the_profile_must_be_exact(largest: int, tmp_path: Path) -> None:
    store(tmp_path, changed(profile={"opt": 1, "max": largest}))
    assert found(tmp_path)[0] == "present"
    status, reason = found(tmp_path, exact=True)
    assert status == "stale"
    assert reason == f"profile: built for waveform[1/1/{largest}, 16000], wanted waveform[1/6/7, 16000]"


def test_an_engine_that_takes_no_single_window_does_not_serve(tmp_path: Path) -> None:
    store(tmp_path, changed(profile={"min": 4}))
    assert found(tmp_path)[0] == "stale"


def test_the_smallest_engine_for_the_batch_goes_first_then_the_largest_below_it(tmp_path: Path) -> None:
    for largest in (2, 4, 16, 12, 3):
        store(tmp_path, changed(profile={"opt": 1, "max": largest}))
    taken = []
    for wanted in (1, 4, 5, 16, 20):
        state = survey(tmp_path, changed(profile={"max": wanted}), bundle=BUNDLE, stage="mert", precision="fp16")
        assert state.engine is not None
        taken.append(state.engine.record.key.profile.max)
    assert taken == [2, 4, 12, 16, 16]


def test_states(tmp_path: Path) -> None:
    assert found(tmp_path / "absent") == ("missing", f"no engine of mert fp16 in {tmp_path / 'absent'}")
    assert found(tmp_path)[0] == "missing"
    engine = store(tmp_path)
    assert found(tmp_path) == ("present", "not verified: no GPU")
    assert read_engine(engine.plan, TARGET) == (CONTENT, "mert")
    # Another encoder's engines are no reason to call this one's stale.
    assert (
        survey(tmp_path, changed(onnx_sha256="c" * 64), bundle=BUNDLE, stage="jmla", precision="fp16").status
        == "missing"
    )


def test_an_engine_that_works_goes_before_one_that_was_rejected(tmp_path: Path) -> None:
    store(tmp_path, rejected="batch 7: cosine 0.5", sha256=None, bytes=0)
    assert found(tmp_path) == ("rejected", "batch 7: cosine 0.5")
    store(tmp_path, changed(profile={"max": 16}))
    assert found(tmp_path)[0] == "present"


def flip(engine: StoredEngine) -> None:
    content = bytearray(engine.plan.read_bytes())
    content[3] ^= 1
    engine.plan.write_bytes(content)


DAMAGE = {
    "flipped byte": (flip, r"engine\.plan: expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}"),
    "cut off": (lambda engine: engine.plan.write_bytes(CONTENT[:-1]), r"engine\.plan: expected 8 bytes, got 7"),
    "gone": (lambda engine: engine.plan.unlink(), r"engine\.plan: cannot be read \(No such file"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_engines_are_refused(damage: str, tmp_path: Path) -> None:
    spoil, words = DAMAGE[damage]
    engine = store(tmp_path)
    spoil(engine)
    status, reason = found(tmp_path)
    assert status == "damaged"
    with pytest.raises(EngineError, match=words + ".*edge-reclass build BUNDLE --stage mert"):
        read_engine(engine.plan, TARGET)
    assert "build it again: edge-reclass build '/srv/my bundle' --stage mert" in reason


def test_a_rejected_engine_is_never_loaded(tmp_path: Path) -> None:
    engine = store(tmp_path, rejected="batch 7: cosine 0.5", sha256=None, bytes=0)
    with pytest.raises(EngineError, match=r"mert was rejected here: batch 7: cosine 0\.5; .*BUNDLE .*--rebuild"):
        read_engine(engine.plan, TARGET)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no record of an engine"),
        (b"{}", "no record of an engine"),
        (b'{"format": 2}', "no record of an engine"),
        (b"\xff\xfe", "no record of an engine"),
        (None, r"no record of an engine .*No such file"),
    ],
)
def test_broken_records(content: bytes | None, words: str, tmp_path: Path) -> None:
    engine = store(tmp_path)
    if content is None:
        (engine.folder / RECORD).unlink()
    else:
        (engine.folder / RECORD).write_bytes(content)
    status, reason = found(tmp_path)
    assert status == "damaged"
    assert re.search(words, reason)


def test_a_record_of_another_key_is_noticed(tmp_path: Path) -> None:
    """A folder that was renamed, or a record in which the version was edited."""
    engine = store(tmp_path)
    other = changed(version="10.16.1")
    text = (engine.folder / RECORD).read_text(encoding="utf-8").replace("10.3.0", "10.16.1")
    (engine.folder / RECORD).write_text(text, encoding="utf-8")
    assert found(tmp_path) == (
        "damaged",
        f"{engine.folder / RECORD}: this record belongs to {other.name}; it was altered or moved",
    )


def test_hidden_folders_and_files_are_no_engines(tmp_path: Path) -> None:
    (tmp_path / ".building-x").mkdir()
    (tmp_path / "timing.cache").write_bytes(b"")
    assert list(stored_engines(tmp_path)) == []
    with pytest.raises(UsageError, match=r"cannot be read from .*--engines DIR"):
        list(stored_engines(tmp_path / "timing.cache"))


def test_where_engines_lie(tmp_path: Path) -> None:
    none, system = tmp_path / "none", tmp_path / "system"
    home = {"HOME": "/home/me"}
    assert default_store(home, none) == Path("/home/me/.local/state/edge-reclass/engines")
    assert default_store(home | {"XDG_STATE_HOME": "/state"}, none) == Path("/state/edge-reclass/engines")
    assert default_store(home | {"XDG_STATE_HOME": "relative"}, none).is_relative_to("/home/me")
    system.mkdir()
    assert default_store(home, system) == system
    assert default_store({"EDGE_RECLASS_ENGINES": "/given"}, system) == Path("/given")
    assert default_store(home | {"EDGE_RECLASS_ENGINES": ""}, system) == system
    variable = {"EDGE_RECLASS_ENGINES": "/var/engines"}
    assert engines_folder("ab12", None, variable) == Path("/var/engines/ab12")
    assert engines_folder("ab12", Path("given"), variable) == Path("given/ab12")


def test_targets() -> None:
    exact = target_for("tensorrt", "10.3.0", gpu=ORIN)
    assert (exact.sm, exact.gpu, exact.driver) == ("8.7", "Orin", "l4t-36.4.3")
    assert describe_target(exact) == "TensorRT 10.3.0 for SM 8.7 (Orin, l4t-36.4.3)"
    portable = target_for("tensorrt-rtx", "1.7.1.116", gpu=None, sm="8.6")
    assert (portable.sm, portable.gpu, portable.driver) == ("8.6", "", "")
    assert portable == target_for("tensorrt-rtx", "1.7.1.116", gpu=Gpu("RTX 3060", "8.6", "driver-580.1"))
    with pytest.raises(DeviceError, match="no GPU here: say which compute capability"):
        target_for("tensorrt-rtx", "1.7.1.116", gpu=None)
    with pytest.raises(DeviceError, match=r"measures on the GPU.*--flavour tensorrt-rtx --sm"):
        target_for("tensorrt", "10.3.0", gpu=None, sm="8.7")
    with pytest.raises(DeviceError, match=r"Orin \(SM 8\.7\), not for SM 8\.6"):
        target_for("tensorrt", "10.3.0", gpu=ORIN, sm="8.6")


def test_file_names() -> None:
    assert (PLAN, RECORD) == ("engine.plan", "engine.json")
