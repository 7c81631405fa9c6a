"""Engines on the disk: what one belongs to (its key), where it lies, and whether it may be loaded here.

An engine is a bundle's ONNX file compiled for one device, and loading it runs native code. So each lies in a folder
named by its key, ``<store>/<bundle's digest>/<key>/``, as ``engine.plan`` beside ``engine.json``, which holds the key
in full, size and sha256 of the plan, how it was verified, and a signature with the store's secret (``engine_trust``).
Whatever differs from what is wanted here is refused, with the command that builds it again. Nothing in this module
needs TensorRT.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from edge_reclass.engine_trust import ENGINES_VARIABLE, StoreKey, default_store, open_store
from edge_reclass.errors import DeviceError, EngineError, UsageError

__all__ = [
    "ENGINES_VARIABLE",
    "FLAGS",
    "PLAN",
    "RECORD",
    "BatchCheck",
    "EngineKey",
    "EngineRecord",
    "Flavour",
    "Found",
    "Gpu",
    "Profile",
    "Rejected",
    "StoredEngine",
    "Target",
    "Verification",
    "describe_target",
    "differences",
    "engine_bytes",
    "engines_folder",
    "probe_gpu",
    "read_record",
    "stored_engines",
    "survey",
    "target_for",
]

PLAN, RECORD = "engine.plan", "engine.json"
FLAGS = ("strongly-typed", "no-tf32")
"""How every engine is built: precisions are the graph's own, and float32 is never rounded to TF32's 10 bits."""

Flavour = Literal["tensorrt", "tensorrt-rtx"]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Target(Struct, frozen=True, forbid_unknown_fields=True):
    """The device and the TensorRT that an engine is for.

    ``sm`` is the compute capability, such as ``8.7``. ``gpu`` and ``driver`` (``l4t-36.4.3`` on a Jetson) are empty
    for TensorRT-RTX: its engines hold for every GPU of one compute capability and are finished when loaded.
    """

    flavour: Flavour
    version: str
    platform: str
    sm: str
    gpu: str = ""
    driver: str = ""


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """The one input, float32[batch, width], and the batch sizes that the engine takes and is tuned for."""

    input: str
    width: int
    min: int
    opt: int
    max: int

    @property
    def batches(self) -> tuple[int, ...]:
        """Smallest, usual and largest batch, each once."""
        return tuple(dict.fromkeys((self.min, self.opt, self.max)))


class EngineKey(Struct, frozen=True, forbid_unknown_fields=True):
    """All that an engine depends on. Two engines of equal keys are interchangeable on one device."""

    onnx_sha256: Digest
    target: Target
    profile: Profile
    flags: tuple[str, ...] = FLAGS

    @property
    def name(self) -> str:
        """The engine's folder: what a person looks for, then 16 digits of the sha256 of the whole key."""
        digest = hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()
        version = re.sub(r"[^0-9A-Za-z.+-]", "_", self.target.version)
        return f"{self.target.flavour}-{version}-sm{self.target.sm.replace('.', '')}-{digest[:16]}"


class BatchCheck(Struct, frozen=True, forbid_unknown_fields=True):
    """One comparison with reference vectors: the worst row's figures (see ``reference.Agreement``) at one batch size.

    ``median_cosine`` is the median row's: by it, INT8 is judged, as at export.
    ``heads`` counts the rows on which a head's top genre was compared, ``heads_agree`` those where it was the same.
    """

    batch: int
    cosine: float
    relative: float
    max_abs: float
    heads: int
    heads_agree: int
    median_cosine: float


class Verification(Struct, frozen=True, forbid_unknown_fields=True):
    """What a run on the device gave, against the bundle's reference vectors (``reference_sha256``)."""

    reference_sha256: Digest
    checks: tuple[BatchCheck, ...]


class Rejected(Struct, frozen=True, forbid_unknown_fields=True):
    """A precision of the encoder that was not taken on this device, and why."""

    precision: str
    reason: str


class EngineRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """engine.json. ``rejected`` says why there is no plan; otherwise ``sha256`` and ``bytes`` are the plan's.

    ``verification`` is None where the engine has not run yet, and ``not_verified`` says why. ``instead_of`` are the
    precisions that were tried first. ``signature`` is that of the store in which it lies.
    """

    format: Literal[1]
    key: EngineKey
    bundle: str
    stage: str
    precision: str
    file: str
    sha256: Digest | None = None
    bytes: int = 0
    build_seconds: float = 0.0
    build_peak_bytes: int = 0
    verification: Verification | None = None
    not_verified: str | None = None
    rejected: str | None = None
    instead_of: tuple[Rejected, ...] = ()
    signature: str = ""

    def signed_by(self, key: StoreKey) -> EngineRecord:
        """The record with a signature of everything else in it."""
        return msgspec.structs.replace(self, signature=key.sign(self._content()))

    def is_signed_by(self, key: StoreKey) -> bool:
        """Whether the record was signed with this store's secret and is as it was then."""
        return key.signed(self._content(), self.signature)

    def _content(self) -> Any:
        return msgspec.json.encode(msgspec.structs.replace(self, signature=""), order="sorted")

    def to_json(self) -> str:
        """The file's content, for people too."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"


@dataclass(frozen=True)
class StoredEngine:
    """A folder of an engine and its record."""

    folder: Path
    record: EngineRecord

    @property
    def plan(self) -> Path:
        """The serialised engine."""
        return self.folder / PLAN


@dataclass(frozen=True)
class Found:
    """What lies there for a wanted key. Only a ``present`` engine may be loaded.

    ``missing``: nothing for this stage and precision. ``stale``: only engines of other keys; ``reason`` says which
    part of the nearest one's key differs. ``damaged``: plan or record were altered or cut off. ``rejected``: it was
    built and gave wrong numbers here, or could not be built.
    """

    status: Literal["missing", "stale", "damaged", "rejected", "present"]
    reason: str
    engine: StoredEngine | None = None


@dataclass(frozen=True)
class Gpu:
    """The first NVIDIA GPU: its name, compute capability such as ``8.7``, and driver or L4T release."""

    name: str
    sm: str
    driver: str


def target_for(flavour: Flavour, version: str, *, gpu: Gpu | None, sm: str | None = None) -> Target:
    """The target of engines that this machine's TensorRT builds for ``gpu``, or for compute capability ``sm``.

    Raises:
        DeviceError: there is no GPU, and TensorRT needs one or ``sm`` is not given.
    """
    wanted = sm or (gpu.sm if gpu else None)
    machine = f"{platform.system().lower()}-{platform.machine().lower()}"
    if flavour == "tensorrt-rtx":
        if wanted is None:
            raise DeviceError("there is no GPU here: say which compute capability to build for, such as --sm 8.6")
        return Target(flavour, version, machine, wanted)
    if gpu is None:
        raise DeviceError(
            "TensorRT measures on the GPU while it builds, and there is none here;"
            " build on the device, or with TensorRT-RTX (--flavour tensorrt-rtx --sm 8.6)"
        )
    if wanted != gpu.sm:
        raise DeviceError(f"TensorRT builds for the GPU of this machine, {gpu.name} (SM {gpu.sm}), not for SM {wanted}")
    return Target(flavour, version, machine, gpu.sm, gpu.name, gpu.driver)


def describe_target(target: Target) -> str:
    """For messages: ``TensorRT 10.3.0 for SM 8.7 (Orin, l4t-36.4.3)``."""
    name = "TensorRT-RTX" if target.flavour == "tensorrt-rtx" else "TensorRT"
    details = ", ".join(part for part in (target.gpu, target.driver) if part)
    return f"{name} {target.version} for SM {target.sm}" + (f" ({details})" if details else "")


def engines_folder(digest: str, option: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the engines of the bundle of this ``digest`` lie, in the store ``--engines`` or the default one."""
    return (option or default_store(environ)) / digest


def stored_engines(folder: Path) -> Iterator[StoredEngine | str]:
    """Every engine below ``folder``, in the order of their names; for a record that cannot be used, what is wrong.

    Raises:
        UsageError: the folder is there but cannot be read.
        EngineError: others may write the store, or its secret cannot be read.
    """
    try:
        entries = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(
            f"engines cannot be read from {folder} ({error.strerror});"
            f" name their folder with --engines DIR or {ENGINES_VARIABLE}"
        ) from error
    if not entries:
        return
    key = open_store(folder.parent)
    key.require_trusted(folder)
    for entry in entries:
        try:
            yield StoredEngine(entry, read_record(entry, key))
        except EngineError as error:
            yield str(error)


def read_record(entry: Path, key: StoreKey) -> EngineRecord:
    """The record in an engine's folder, which this store has signed.

    Raises:
        EngineError: there is none, it is not signed or was altered or moved, or others may write it or the plan.
    """
    file = entry / RECORD
    try:
        for path in (entry, file, entry / PLAN):
            if path.exists():
                key.require_trusted(path)
        record = msgspec.json.decode(file.read_bytes(), type=EngineRecord)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"{file}: no record of an engine ({error})") from error
    if record.key.name != entry.name:
        raise EngineError(f"{file}: this record belongs to {record.key.name}; it was altered or moved")
    if not record.is_signed_by(key):
        raise EngineError(f"{file}: not signed with the secret of {key.store}, so it was not built here or was altered")
    return record


def differences(have: EngineKey, want: EngineKey, *, exact: bool = False) -> list[str]:
    """What keeps an engine of key ``have`` from being used where ``want`` is asked for; empty where nothing does.

    Unless ``exact``, any profile of the same input and width that takes single windows serves: who runs the engine
    asks it for no more than its own maximum at a time.
    """
    wrong = []
    if have.onnx_sha256 != want.onnx_sha256:
        wrong.append(f"the ONNX file has changed: built from {have.onnx_sha256[:12]}, now {want.onnx_sha256[:12]}")
    labels = {
        "flavour": "flavour",
        "version": "TensorRT version",
        "platform": "platform",
        "sm": "compute capability (SM)",
        "gpu": "GPU",
        "driver": "driver",
    }
    for field, label in labels.items():
        before, now = getattr(have.target, field), getattr(want.target, field)
        if before != now:
            wrong.append(f"{label}: built for {before or 'any'}, here {now or 'any'}")
    one, other = have.profile, want.profile
    serves = (one.input, one.width) == (other.input, other.width) and one.min <= 1 <= one.max
    if one != other if exact else not serves:
        wrong.append(f"profile: built for {_profile(one)}, wanted {_profile(other)}")
    if have.flags != want.flags:
        wrong.append(f"flags: built with {', '.join(have.flags)}, wanted {', '.join(want.flags)}")
    return wrong


def _profile(profile: Profile) -> str:
    return f"{profile.input}[{profile.min}/{profile.opt}/{profile.max}, {profile.width}]"


def survey(folder: Path, want: EngineKey, *, bundle: Path, stage: str, precision: str, exact: bool = False) -> Found:
    """What lies in ``folder`` for ``want``: the plan's size and sha256 are checked too.

    ``stage`` and ``precision`` tell which engines of other keys are this encoder's, for the reason. Unless ``exact``,
    the engine's largest batch (``engine.record.key.profile.max``) may be another than the wanted one; it is the
    largest at which it may be run. ``bundle`` is the bundle's folder, for the command in the reason.

    Raises:
        UsageError: the folder cannot be read.
    """
    stale: list[tuple[list[str], StoredEngine]] = []
    fitting: list[StoredEngine] = []
    broken: str | None = None
    for entry in stored_engines(folder):
        if isinstance(entry, str):
            broken = entry if want.name in entry else broken
        elif wrong := differences(entry.record.key, want, exact=exact):
            if (entry.record.stage, entry.record.precision) == (stage, precision):
                stale.append((wrong, entry))
        else:
            fitting.append(entry)
    if fitting:
        engine = min(fitting, key=lambda one: _preference(one.record, want.profile.max))
        if engine.record.rejected is not None:
            return Found("rejected", engine.record.rejected, engine)
        try:
            _check_plan(engine, bundle)
        except EngineError as error:
            return Found("damaged", str(error), engine)
        reason = "verified" if engine.record.verification else f"not verified: {engine.record.not_verified}"
        return Found("present", reason, engine)
    if broken is not None:
        return Found("damaged", broken)
    if stale:
        wrong, engine = min(stale, key=lambda item: len(item[0]))
        return Found("stale", "; ".join(wrong), engine)
    return Found("missing", f"no engine of {stage} {precision} in {folder}")


def _preference(record: EngineRecord, batch: int) -> tuple[bool, bool, int]:
    """Sorts a usable engine before a rejected one, one that takes ``batch`` before one that does not.

    Of those that do, the smallest buffers are best; of those that do not, the largest batch.
    """
    most = record.key.profile.max
    return record.rejected is not None, most < batch, most if most >= batch else -most


def engine_bytes(engine: StoredEngine, bundle: Path) -> bytes:
    """The plan, read once and checked, so that what was hashed is what is loaded. ``bundle`` is for the message.

    Raises:
        EngineError: the engine was rejected, or its plan is missing, cut off or altered.
    """
    if engine.record.rejected is not None:
        raise EngineError(
            f"{engine.folder}: {engine.record.stage} was rejected here: {engine.record.rejected};"
            f" edge-reclass build {shlex.quote(str(bundle))} --stage {engine.record.stage} --rebuild  tries again"
        )
    try:
        content = engine.plan.read_bytes()
    except OSError as error:
        raise EngineError(f"{engine.plan}: cannot be read ({error.strerror}); {_mend(engine, bundle)}") from error
    _compare(engine, bundle, len(content), hashlib.sha256(content).hexdigest())
    return content


def _check_plan(engine: StoredEngine, bundle: Path) -> None:
    """As :func:`engine_bytes`, without holding the plan in memory."""
    digest = hashlib.sha256()
    try:
        size = engine.plan.stat().st_size
        if size == engine.record.bytes:
            with engine.plan.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise EngineError(f"{engine.plan}: cannot be read ({error.strerror}); {_mend(engine, bundle)}") from error
    _compare(engine, bundle, size, digest.hexdigest())


def _compare(engine: StoredEngine, bundle: Path, size: int, digest: str) -> None:
    record = engine.record
    if size != record.bytes:
        raise EngineError(f"{engine.plan}: expected {record.bytes} bytes, got {size}; {_mend(engine, bundle)}")
    if digest != record.sha256:
        raise EngineError(f"{engine.plan}: expected sha256 {record.sha256}, got {digest}; {_mend(engine, bundle)}")


def _mend(engine: StoredEngine, bundle: Path) -> str:
    return f"build it again: edge-reclass build {shlex.quote(str(bundle))} --stage {engine.record.stage}"


_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h


def probe_gpu(root: Path = Path("/"), load: Callable[[str], Any] = ctypes.CDLL) -> Gpu:
    """Ask the CUDA driver for its first GPU. Reads only; makes no context and takes no GPU memory.

    Args:
        root: where ``etc`` and ``proc`` are looked for.
        load: opens a shared library by name.

    Raises:
        DeviceError: there is no driver or no GPU.
    """
    try:
        cuda = load("libcuda.so.1")
    except OSError as error:
        raise DeviceError(f"no NVIDIA GPU: the CUDA driver cannot be loaded ({error})") from error

    def ask(function: str, *arguments: Any) -> None:
        status = getattr(cuda, function)(*arguments)
        if status != 0:
            raise DeviceError(f"no NVIDIA GPU can be used: {function} gives CUDA error {status}")

    ask("cuInit", 0)
    device, count = ctypes.c_int(), ctypes.c_int()
    ask("cuDeviceGetCount", ctypes.byref(count))
    if count.value < 1:
        raise DeviceError("no NVIDIA GPU: the CUDA driver counts none (is CUDA_VISIBLE_DEVICES empty?)")
    ask("cuDeviceGet", ctypes.byref(device), 0)
    major, minor, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    ask("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
    ask("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
    ask("cuDriverGetVersion", ctypes.byref(version))
    name = ctypes.create_string_buffer(256)
    ask("cuDeviceGetName", name, len(name), device)
    driver = _release(root) or f"cuda-{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", driver)


def _release(root: Path) -> str | None:
    """The L4T release of a Jetson, else the version of the NVIDIA kernel module."""
    patterns = {
        "etc/nv_tegra_release": (r"# R(\d+) \(release\), REVISION: ([\d.]+)", "l4t-{0}.{1}"),
        "proc/driver/nvidia/version": (r"NVRM version:.*?\s(\d{3,}\.[\d.]+)\s", "driver-{0}"),
    }
    for file, (pattern, form) in patterns.items():
        try:
            text = (root / file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if match := re.search(pattern, text):
            return form.format(*match.groups())
    return None
