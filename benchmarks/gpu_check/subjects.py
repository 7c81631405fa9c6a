"""What is held against torch: every backend that opens here, in every precision that it can run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from edge_reclass.backends import Backend, Graph, open_backend
from edge_reclass.bundle import Bundle, WaveformEntry, load
from edge_reclass.engines import Flavour
from edge_reclass.host import usable_cpus
from edge_reclass_export.engine.verify import open_encoder
from gpu_check.geometry import Encoder
from gpu_check.journal import NotHere, load_record
from gpu_check.settings import Settings
from gpu_check.setup import versions

__all__ = ["Subject", "Subjects", "require"]

_FLAVOURS = get_args(Flavour)
_PRECISIONS = ("fp16", "fp32")


def require(device: str) -> None:
    """Raises ``NotHere`` where the packages of ``device`` were not brought; what is here and does not work, fails."""
    if device == "cuda" and not versions(("onnxruntime-gpu",)):
        raise NotHere("onnxruntime-gpu is not installed; the carried sets 'ort' have it")
    if device == "tensorrt" and not versions(("tensorrt", "tensorrt-rtx-cu13-bindings")):
        raise NotHere("neither TensorRT nor TensorRT-RTX is installed; the carried sets 'rtx' have the latter")


@dataclass(frozen=True)
class Subject:
    """One encoder on one backend in one precision; ``open`` gives its graph for ``max_batch`` windows.

    ``open`` raises ``NotHere`` where there is no such backend or engine, and what the backend raises.
    """

    name: str
    backend: str
    precision: str
    open: Callable[[int], Graph]


class Subjects:
    """Backends are opened when first needed and closed together; a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._resources = ExitStack()
        self._backends: dict[str, Backend] = {}
        self._bundle: Bundle | None = None

    def __enter__(self) -> Subjects:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def of(self, encoder: Encoder) -> list[Subject]:
        """Every backend × precision that a user of this device could ask for."""
        names = ("cpu",) if self._settings.device == "cpu" else ("cuda", *_FLAVOURS)
        return [
            Subject(f"{name} {precision}", name, precision, self._opener(encoder, name, precision))
            for name in names
            for precision in _PRECISIONS
        ]

    def entry(self, encoder: Encoder) -> WaveformEntry:
        """The stage as the manifest has it. Raises ``NotHere`` where it was not exported yet."""
        bundle = self._loaded()
        for stage in bundle.manifest.stages:
            if stage.name == encoder.name and isinstance(stage.encoder, WaveformEntry):
                return stage.encoder
        raise NotHere(f"{encoder.name} is not in {bundle.root}: run the stage export first")

    def bundle(self) -> Bundle:
        """The bundle of the stage ``export``."""
        return self._loaded()

    def _loaded(self) -> Bundle:
        if self._bundle is None:
            if not self._settings.bundle.is_dir():
                raise NotHere(f"there is no {self._settings.bundle}: run the stage export first")
            self._bundle = load(self._settings.bundle)
        return self._bundle

    def _opener(self, encoder: Encoder, backend: str, precision: str) -> Callable[[int], Graph]:
        def opened(max_batch: int) -> Graph:
            entry = self.entry(encoder)
            files: dict[str, str] = {str(key): file for key, file in entry.files.items()}
            if backend in _FLAVOURS:
                file = self._plan(backend, encoder, precision)
            else:
                file = self._loaded().path(files[precision])
            return open_encoder(self._backend(backend), file, entry, max_batch)

        return opened

    def _backend(self, name: str) -> Backend:
        if name not in self._backends:
            if name in _FLAVOURS:
                from edge_reclass.backends.tensorrt import TensorRTBackend

                made: Backend = TensorRTBackend(timed=True, flavour=name)
            else:
                require(name)
                made = open_backend(name, threads=usable_cpus(), timed=True)
            self._backends[name] = self._resources.enter_context(made)
        return self._backends[name]

    def _plan(self, flavour: str, encoder: Encoder, precision: str) -> Path:
        record = load_record(self._settings.state / "records" / "build.json")
        item = (record or {"items": {}})["items"].get(f"{flavour} {encoder.name} {precision}")
        if item is None or item["status"] != "ok":
            why = "the stage build has not run" if item is None else item.get("reason") or item.get("error")
            raise NotHere(f"no engine of {encoder.name} {precision} by {flavour}: {why}")
        return Path(item["result"]["plan"])
