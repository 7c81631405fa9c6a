"""What an engine belongs to (its key), and the record that lies beside it.

The record holds the key in full, size and sha256 of the engine, how it was verified, and a signature.
"""

from __future__ import annotations

import hashlib
import platform
import re
from typing import Any, Literal

import msgspec
from msgspec import Struct

from edge_reclass.bundle.manifest import Digest
from edge_reclass.engines.trust import StoreKey
from edge_reclass.errors import DeviceError
from edge_reclass.host import Gpu

FLAGS = ("strongly-typed", "no-tf32")
"""How every engine is built: precisions are the graph's own, and float32 is never rounded to TF32's 10 bits."""

Flavour = Literal["tensorrt", "tensorrt-rtx"]


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
    """engine.json. ``rejected`` says why there is no engine; otherwise ``sha256`` and ``bytes`` are the engine's.

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
