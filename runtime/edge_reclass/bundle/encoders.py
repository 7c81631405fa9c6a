"""Encoder kinds: what the manifest says of each, and which module opens it.

To add a kind, write a module with ``Entry``, a msgspec struct that is also an :class:`EncoderEntry` (tag: the kind),
and ``open_encoder`` (see ``cascade/encoders``), and enter it in :data:`KINDS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from edge_reclass.bundle.limits import MAX_DIM, MAX_EXCERPT_SECONDS, MAX_WINDOW_SECONDS

FMA518_DIM: Final = 518

KINDS: dict[str, str] = {
    "fma518": "edge_reclass.cascade.encoders.fma518",
    "waveform": "edge_reclass.cascade.encoders.waveform",
}
"""The module of each kind, imported when a bundle has such a stage."""

Rate = Annotated[int, Meta(ge=8_000, le=192_000)]
Dim = Annotated[int, Meta(ge=1, le=MAX_DIM)]
Samples = Annotated[int, Meta(ge=1, le=int(MAX_WINDOW_SECONDS) * 192_000)]
Seconds = Annotated[float, Meta(gt=0, le=MAX_EXCERPT_SECONDS)]
Precision = Literal["fp32", "fp16"]
Short = Literal["repeat", "repeat_centered", "reject"]


class EncoderEntry:
    """What the manifest says of an encoder; base of the entries of all kinds."""

    __slots__ = ()

    reference: str | None = None
    """The file with its reference vectors."""

    @property
    def rate(self) -> int | Literal["native"]:
        """Samples per second that it hears; ``native``: the file's."""
        raise NotImplementedError

    @property
    def window_samples(self) -> int | None:
        """Samples that it takes at once; None: the whole excerpt."""
        raise NotImplementedError

    @property
    def hop_samples(self) -> int | None:
        """Samples from the start of one window to the next; None: the whole excerpt is heard at once."""
        raise NotImplementedError

    @property
    def dim(self) -> int:
        """Numbers in its embedding."""
        raise NotImplementedError

    @property
    def short(self) -> Short:
        """What becomes of an excerpt that is shorter than a window."""
        raise NotImplementedError

    @property
    def min_seconds(self) -> float:
        """Tracks shorter than this are ``too_short``."""
        raise NotImplementedError

    @property
    def graph_files(self) -> Mapping[str, str]:
        """Its ONNX files by precision, waveform[batch, window_samples] → embedding[batch, dim]; empty: it has none."""
        return {}

    def faults(self) -> Iterator[str]:
        """What does not fit together in it: ``key: expected …, got …``."""
        yield from ()

    def describe(self) -> str:
        """For people, such as ``200 wide at 16000 Hz, fp32``."""
        raise NotImplementedError


class Fma518Entry(
    Struct, EncoderEntry, tag="fma518", tag_field="kind", forbid_unknown_fields=True, frozen=True, omit_defaults=True
):
    """The hand-crafted features at a fixed rate (or ``native``), of the whole excerpt or as the mean over windows."""

    rate: Rate | Literal["native"]
    window_samples: Samples | None = None
    hop_samples: Samples | None = None
    short: Short = "repeat"
    min_seconds: Seconds = 1.0

    @property
    def dim(self) -> int:
        """See :attr:`EncoderEntry.dim`."""
        return FMA518_DIM

    def describe(self) -> str:
        """See :meth:`EncoderEntry.describe`."""
        rate = self.rate if self.rate == "native" else f"{self.rate} Hz"
        return f"fma518 at {rate}, {self.dim} features"


class WaveformEntry(
    Struct, EncoderEntry, tag="waveform", tag_field="kind", forbid_unknown_fields=True, frozen=True, omit_defaults=True
):
    """An ONNX graph waveform[batch, window_samples] → embedding[batch, dim], one file per precision."""

    rate: Rate
    window_samples: Samples
    hop_samples: Samples
    dim: Dim
    files: dict[Precision, str]
    short: Short = "repeat"
    min_seconds: Seconds = 1.0
    reference: str | None = None

    @property
    def graph_files(self) -> Mapping[str, str]:
        """See :attr:`EncoderEntry.graph_files`."""
        return {str(precision): file for precision, file in self.files.items()}

    def faults(self) -> Iterator[str]:
        """See :meth:`EncoderEntry.faults`."""
        if not self.files:
            yield "files: expected at least one of fp32, fp16, got none"

    def describe(self) -> str:
        """See :meth:`EncoderEntry.describe`."""
        return f"{self.dim} wide at {self.rate} Hz, {', '.join(self.files)}"


def decode_encoder(kind: type[Any], plain: Any) -> EncoderEntry:
    """A ``dec_hook`` for ``msgspec.convert``: the entry of the kind that ``plain`` names.

    Raises:
        ValueError: no such kind, or a key that does not fit it; the message ends with the path below the encoder.
    """
    if kind is not EncoderEntry:
        raise NotImplementedError(kind)
    if not isinstance(plain, dict):
        raise ValueError(f"Expected `object`, got `{type(plain).__name__}`")
    if "kind" not in plain:
        raise ValueError("Object missing required field `kind`")
    name = plain["kind"]
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"Invalid value {name!r}: expected one of {', '.join(KINDS)} - at `$.kind`")
    entry = import_module(KINDS[name]).Entry
    try:
        converted: EncoderEntry = msgspec.convert(plain, entry)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    return converted
