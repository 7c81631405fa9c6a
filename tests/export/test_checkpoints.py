"""Reading checkpoints: every layout that is known, nothing that runs code, and a message of its own for each defect."""

# ruff: noqa: E402 - torch is optional, and what follows needs it

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_reclass.errors import UsageError

torch = pytest.importorskip("torch", reason="the export needs torch")

from safetensors.torch import save_file

from edge_reclass_export.checkpoint_place import checkpoint_in
from edge_reclass_export.checkpoints import Checkpoint, load_state, some
from edge_reclass_export.errors import CheckpointError

STATE = {"net.0.weight": torch.arange(6.0).reshape(2, 3), "net.0.bias": torch.tensor([1.0, 2.0])}


class Opens:
    """What a hostile pickle does: names a function that runs while it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def saved(content: object, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def test_bare_state_dict_and_wrapped_one(tmp_path: Path) -> None:
    bare = load_state(saved(STATE, tmp_path / "bare.pth"))
    assert {name: tensor.tolist() for name, tensor in bare.tensors.items()} == {
        name: tensor.tolist() for name, tensor in STATE.items()
    }
    for wrapper in ("state_dict", "model_state_dict", "model", "module"):
        wrapped = load_state(saved({wrapper: STATE, "epoch": 7}, tmp_path / "wrapped.pth"))
        assert set(wrapped.tensors) == set(STATE)
        assert wrapped.extras == {"epoch": 7}


def test_the_format_before_the_archive_is_read(tmp_path: Path) -> None:
    path = saved({"state_dict": STATE}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    assert set(load_state(path).tensors) == set(STATE)


@pytest.mark.parametrize("package", ["numpy._core", "numpy.core"])
def test_numpy_arrays_beside_the_state_dict(package: str, tmp_path: Path) -> None:
    """As in msd_model.pth, whichever numpy wrote it."""
    path = tmp_path / "msd_model.pth"
    scaler = np.linspace(-1.0, 1.0, 518)
    content = {"model": STATE, "scaler_mean": scaler, "genres": ["Blues", "Rock"], "accuracy": np.float64(0.5)}
    saved(content, path)
    _rename_in_pickle(path, {b"numpy._core": package.encode(), b"numpy.core": package.encode()})
    extras = load_state(path).extras
    np.testing.assert_array_equal(extras["scaler_mean"], scaler)
    assert extras["scaler_mean"].dtype == np.float64
    assert (extras["genres"], float(extras["accuracy"])) == (["Blues", "Rock"], 0.5)


def _rename_in_pickle(path: Path, names: dict[bytes, bytes]) -> None:
    """Protocol 2 names globals as text lines, so another numpy's names can be put in."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            if name.endswith("data.pkl"):
                for old, new in names.items():
                    content = content.replace(b"c" + old + b".multiarray\n", b"c" + new + b".multiarray\n")
            archive.writestr(name, content)


def test_safetensors_with_metadata(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors", metadata={"format": "pt"})
    loaded = load_state(tmp_path / "a.safetensors")
    assert (loaded.extras, set(loaded.tensors)) == ({"format": "pt"}, set(STATE))
    renamed = (tmp_path / "a.safetensors").rename(tmp_path / "weights.bin")  # known by its content
    assert set(load_state(renamed).tensors) == set(STATE)


def test_a_pickle_that_wants_more_is_refused_by_name_and_does_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "it_ran"
    for path in (
        saved({"model": STATE, "extra": Opens(proof)}, tmp_path / "evil.pth"),
        saved({"model": STATE, "extra": Opens(proof)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False),
    ):
        with pytest.raises(CheckpointError, match=r"refused: its pickle wants posix\.mkdir, and loading"):
            load_state(path)
    assert not proof.exists()


def test_objects_in_numpy_arrays_are_refused(tmp_path: Path) -> None:
    content = {"model": STATE, "names": np.array(["a", None], dtype=object)}
    with pytest.raises(CheckpointError, match=r"refused: its pickle wants numpy\.dtypes\.ObjectDType"):
        load_state(saved(content, tmp_path / "objects.pth"))


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flipped(content: bytes) -> bytes:
    place = content.index(STATE["net.0.weight"].numpy().tobytes())
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_truncated, "truncated"),
        (_flipped, r"checksum of \S+ does not match"),
        (lambda content: b"", "the file is empty"),
        (lambda content: b"hello world" * 9, "no torch checkpoint"),
        (lambda content: pickle.dumps({"a": 1}), "pickle of another kind"),
        (lambda content: pickle.dumps(STATE, protocol=4), r"no torch checkpoint|refused"),
    ],
)
def test_damaged_torch_files(spoil: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    path = saved(STATE, tmp_path / "a.pth")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CheckpointError, match=message):
        load_state(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-5], r"is truncated: expected \d+ bytes, got \d+"),
        (lambda content: content[:20], "is damaged or no safetensors file"),
        (lambda content: b"\xff" * 64, "is damaged or no safetensors file"),
    ],
)
def test_damaged_safetensors(spoil: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CheckpointError, match=message):
        load_state(path)


def test_torch_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected a state dict, got a tensor of shape \[2, 3\]"):
        load_state(saved(STATE["net.0.weight"], tmp_path / "tensor.pth"))
    with pytest.raises(CheckpointError, match=r"no state dict: expected tensors.*it has epoch, lr"):
        load_state(saved({"epoch": 1, "lr": 0.1}, tmp_path / "numbers.pth"))
    script = tmp_path / "script.pt"
    with zipfile.ZipFile(saved(STATE, script), "a") as archive:
        archive.writestr("a/constants.pkl", b"")  # by this member torch knows a TorchScript archive
    with pytest.raises(CheckpointError, match=r"TorchScript|damaged"):
        load_state(script)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the checkpoint"):
        load_state(tmp_path / "absent.pth")


def made(*names: str, **shapes: tuple[int, ...]) -> Checkpoint:
    tensors = {name: torch.ones(2) for name in names} | {name: torch.ones(shape) for name, shape in shapes.items()}
    return Checkpoint(Path("made.pth"), "0" * 64, tensors)


def test_prefixes() -> None:
    both = made("ema.backbone.a.weight", "backbone.a.weight", "backbone.b", "lm.c")
    inside = both.under("a.weight")
    assert (set(inside.tensors), inside.prefix) == ({"a.weight", "b"}, "backbone.")
    assert inside.outside == ("ema.backbone.a.weight", "lm.c")
    assert made("a.weight").under("a.weight").prefix == ""
    with pytest.raises(CheckpointError, match=r"no tensor 'a.weight'.*it has extra.weight, data.weight"):
        made("extra.weight", "data.weight").under("a.weight")


def test_names_that_meet() -> None:
    with pytest.raises(CheckpointError, match="two tensors are 'new'"):
        made("old", "new").renamed({"^old$": "new"})


def test_counting() -> None:
    assert made("layers.0.w", "layers.1.w", "layers.10x", "other.5.w").count("layers.{}.w") == 2
    assert made("a").count("layers.{}.") == 0
    with pytest.raises(CheckpointError, match=r"the highest N is 3, but 1, 2 is missing"):
        made("layers.0.w", "layers.3.w").count("layers.{}.")


def test_taking_says_everything_that_does_not_fit() -> None:
    checkpoint = made(a=(2, 3), b=(4,), more=(1,), head=(1,))
    with pytest.raises(CheckpointError) as caught:
        checkpoint.take({"a": (3, 2), "b": (4,), "c": (1,), "d": (1,)}, ignore=["hea*"], optional=["d"])
    text = str(caught.value)
    assert "1 of 4 tensors are missing: c" in text
    assert "1 tensors are not expected: more" in text
    assert "a expected [3, 2], got [2, 3]" in text
    assert list(checkpoint.take({"b": (4,), "d": (1,), "a": (2, 3)}, ignore=["*"], optional=["d"])) == ["b", "a"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_becomes_float32(dtype: torch.dtype) -> None:
    values = torch.tensor([1.5, -2.25])
    checkpoint = Checkpoint(Path("a"), "", {"a": values.to(dtype)})
    taken = checkpoint.take({"a": (2,)})["a"]
    assert taken.dtype == torch.float32 and taken.tolist() == [1.5, -2.25]
    assert checkpoint.stored_dtypes == (str(dtype).removeprefix("torch."),)


def test_weights_that_are_none() -> None:
    with pytest.raises(CheckpointError, match="a holds NaN or infinity"):
        Checkpoint(Path("x"), "", {"a": torch.tensor([1.0, float("nan")])}).take({"a": (2,)})
    with pytest.raises(CheckpointError, match=r"a: expected floating point, got torch.int64"):
        Checkpoint(Path("x"), "", {"a": torch.tensor([1, 2])}).take({"a": (2,)})
    with pytest.raises(CheckpointError, match=r"a: expected 2 dimensions, got the shape \[2\]"):
        made("a").shape("a", 2)


def test_directories(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a checkpoint directory"):
        checkpoint_in(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"neither .* nor .* is there"):
        checkpoint_in(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert checkpoint_in(tmp_path).name == "model.safetensors.index.json"
    (tmp_path / "pytorch_model.bin").touch()
    assert checkpoint_in(tmp_path).name == "pytorch_model.bin"
    (tmp_path / "model.safetensors").touch()
    assert checkpoint_in(tmp_path).name == "model.safetensors"


def test_some() -> None:
    assert some([]) == "nothing"
    assert some("abcde") == "a, b, c, d, e"
    assert some("abcdefg") == "a, b, c, d, e, and 2 more"
