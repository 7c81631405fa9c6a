"""The first GPU through TensorRT or TensorRT-RTX."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from weakref import WeakSet

from edge_reclass import host
from edge_reclass.backends.base import Backend, GraphSource, TensorSpec
from edge_reclass.backends.tensorrt import api
from edge_reclass.backends.tensorrt.graph import TensorRTGraph
from edge_reclass.backends.tensorrt.memory import open_cuda_memory
from edge_reclass.bundle import Bundle
from edge_reclass.engines import GraphChoice, choose_engines, engines_folder, target_for
from edge_reclass.engines.store import read_engine
from edge_reclass.errors import DeviceError, EngineError

_log = logging.getLogger(__name__)


class TensorRTBackend(Backend):
    """See :class:`edge_reclass.backends.base.Backend`.

    Args:
        threads: of no use here; the signature is that of all backends.
        timed: measure copies and computation with CUDA events.
        flavour: ``tensorrt``, ``tensorrt-rtx``, or ``auto`` for the first of them that is installed.

    Raises:
        DeviceError: there is no TensorRT, no GPU, or neither can be used.
        MissingExtraError: no CUDA memory binding is installed.
        UsageError: no such binding or flavour.
    """

    name = "tensorrt"
    precisions: tuple[str, ...] = ("fp16", "fp32")
    shares_batches = True
    needs_nvidia_gpu = True

    def __init__(self, threads: int = 1, *, timed: bool = False, flavour: str = "auto") -> None:
        del threads
        gpu = host.probe_gpu()  # first: without one there is no reason to install anything
        self.library = api.open_library(flavour)
        """The TensorRT that was found."""
        self._cuda = open_cuda_memory()
        self._timed = timed
        self._graphs: WeakSet[TensorRTGraph] = WeakSet()
        self._runtime: api.Held | None = None
        try:
            self.target = target_for(self.library.flavour, self.library.version, gpu=gpu)
            """What an engine has to be built for."""
            with self._cuda.current():
                self._runtime = api.make_runtime(self.library)
        except BaseException:
            self._cuda.close()
            raise

    def choose_graphs(
        self, bundle: Bundle, batches: Mapping[str, int], engines: Path | None
    ) -> Mapping[str, GraphChoice]:
        """The engines that were built for this device; see :func:`edge_reclass.engines.choose_engines`."""
        return choose_engines(bundle, batches, self.target, engines_folder(bundle.digest, engines))

    def open_graph(
        self, file: GraphSource, *, input_name: str, output_name: str, width: int, output_width: int, max_batch: int
    ) -> TensorRTGraph:
        """Load an engine; see :meth:`Backend.open_graph`.

        ``file`` as a path is an engine of a store, which has to have an authenticated record. A ``GraphFile`` is taken
        as it is: an engine that this process has just built.

        Raises:
            EngineError: also where the engine is for another device, was altered, or takes smaller batches only.
        """
        path = file if isinstance(file, Path) else file.path
        if max_batch < 1:
            raise ValueError(f"max_batch: expected at least 1, got {max_batch}")
        if self._runtime is None:
            raise EngineError(f"{path}: the device tensorrt was closed")
        stage: str | None = None
        if isinstance(file, Path):
            content, stage = read_engine(file, self.target)
        else:
            content = file.read()
        graph = TensorRTGraph(
            self.library,
            self._cuda,
            path,
            source=TensorSpec(input_name, width),
            target=TensorSpec(output_name, output_width),
            max_batch=max_batch,
            timed=self._timed,
            stage=stage,
        )
        graph.open(self._runtime, content)
        self._graphs.add(graph)
        return graph

    def close(self) -> None:
        """Release TensorRT's runtime and the device, after any graph that was left open.

        A device that was lost is logged and not raised: what ran on it has said so.
        """
        runtime, self._runtime = self._runtime, None
        if runtime is None:
            return
        releases: list[Callable[[], None]] = [graph.close for graph in self._graphs]
        releases += [partial(self._drop, runtime), self._cuda.close]
        for release in releases:
            try:
                release()
            except (EngineError, DeviceError, MemoryError) as error:
                _log.warning("tensorrt: close: %s", error)

    def _drop(self, runtime: api.Held) -> None:
        try:
            with self._cuda.current():
                runtime.drop()
        finally:
            runtime.drop()
