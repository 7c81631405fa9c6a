"""What the cascades of one process share: the plan, the device, and the encoders; opened once, for one or more lanes.

``auto`` means the first of tensorrt, cuda and cpu that opens with the bundle at hand; opening is the only proof that a
device can be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from edge_reclass.backends import Backend, open_backend
from edge_reclass.bundle.loading import Bundle, load, starter_path
from edge_reclass.bundle.manifest import WaveformEntry
from edge_reclass.cascade.plan import (
    DEFAULT_BATCH,
    DEFAULT_MAX_RATE,
    DEFAULT_MAX_SECONDS,
    Plan,
    compile_plan,
    untrained,
)
from edge_reclass.cascade.policy import Policy
from edge_reclass.cascade.shared_batches import SharedGraph
from edge_reclass.cascade.stages import Stage, open_graph, open_stage
from edge_reclass.errors import DeviceError, EngineError, UsageError
from edge_reclass.host.cpus import usable_cpus

__all__ = ["AUTO", "Options", "Shared", "load_bundle", "open_with"]

AUTO = "auto"
_PREFERRED = ("tensorrt", "cuda")

Made = TypeVar("Made")


@dataclass(frozen=True)
class Options:
    """How a bundle is opened; see :meth:`edge_reclass.cascade.Cascade.open`."""

    threads: int | None = None
    max_rate: int = DEFAULT_MAX_RATE
    max_seconds: float = DEFAULT_MAX_SECONDS
    batch: int = DEFAULT_BATCH
    allow_random: bool = False
    engines: Path | None = None
    timed: bool = False
    min_confidence: float | None = None


class Shared:
    """An opened bundle, from which each lane opens its own stages. Made by :func:`open_with`."""

    def __init__(
        self, plan: Plan, backend: Backend, threads: int, lanes: int, notes: tuple[str, ...], resources: ExitStack
    ) -> None:
        self.plan = plan
        self.device = backend.name
        self.lanes = lanes
        self.notes = notes
        """What a user should know: why ``auto`` took no other device, which stages run elsewhere."""
        self._threads = threads
        self._resources = resources
        # Heads are a few small products: on any device the CPU has done them before a copy would have begun.
        self._heads = resources.enter_context(open_backend("cpu", threads=1))
        self._backends: dict[str | None, Backend] = {None: backend}
        self._graphs: dict[str, SharedGraph] = {}
        for stage in plan.stages:
            if stage.device is not None and stage.device not in self._backends:
                self._backends[stage.device] = resources.enter_context(
                    open_backend(stage.device, threads=_pool_threads(stage.device, threads, lanes))
                )
            here = self._backends[stage.device]
            if lanes > 1 and here.shares_batches and isinstance(stage.encoder, WaveformEntry):
                graph = SharedGraph(open_graph(stage, here), stage.name)
                resources.callback(graph.close)
                self._graphs[stage.name] = graph

    @property
    def batches(self) -> Mapping[str, tuple[int, ...]]:
        """For each stage that lanes share: how many batches of 0, 1, 2, … windows were run."""
        return {name: tuple(graph.batches) for name, graph in self._graphs.items()}

    def open_stages(self, resources: ExitStack) -> list[Stage]:
        """One lane's stages in running order; ``resources`` closes them.

        Raises:
            EngineError: a graph cannot be opened or does not fit the manifest.
        """
        stages = []
        for plan in self.plan.stages:
            backend, graph = self._backends[plan.device], self._graphs.get(plan.name)
            stage = open_stage(self.plan, plan, backend, self._heads, threads=self._threads, shared=graph)
            resources.callback(stage.close)
            stages.append(stage)
        return stages

    def close(self) -> None:
        """Release encoders and device; the lanes' stages have to be closed by then. Closing twice is allowed."""
        self._resources.close()


def load_bundle(bundle: str | Path | Bundle | None) -> Bundle:
    """A bundle by its directory; None is the starter bundle of the package. Raises ``BundleError``."""
    return bundle if isinstance(bundle, Bundle) else load(starter_path() if bundle is None else bundle)


def open_with(
    bundle: Bundle,
    device: str | Backend,
    policy: Policy,
    options: Options,
    make: Callable[[Shared], Made],
    *,
    lanes: int | None = 1,
) -> Made:
    """Open a bundle on a device, and what ``make`` makes of it.

    Args:
        device: ``cpu``, ``cuda``, ``tensorrt``, ``auto``, or an opened backend, which then belongs to the result.
        make: opens the lanes. Where a device fails only here, it is passed over by ``auto`` all the same.
        lanes: tracks to work on at a time; None: as many as the device can make use of.

    Raises:
        UsageError, BundleError, EngineError, DeviceError: see ``Cascade.open``.
    """
    if device != AUTO:
        return _open(bundle, device, policy, options, make, lanes, ())
    notes: list[str] = []
    for name in _PREFERRED if _has_gpu(notes) else ():
        try:
            return _open(bundle, name, policy, options, make, lanes, tuple(notes))
        except (DeviceError, EngineError) as error:
            notes.append(f"not {name}: {error}")
    return _open(bundle, "cpu", policy, options, make, lanes, tuple(notes))


def _has_gpu(notes: list[str]) -> bool:
    from edge_reclass.host.gpu import probe_gpu

    try:
        probe_gpu()
    except DeviceError as error:
        notes.append(str(error))
        return False
    return True


def _open(
    bundle: Bundle,
    device: str | Backend,
    policy: Policy,
    options: Options,
    make: Callable[[Shared], Made],
    lanes: int | None,
    notes: tuple[str, ...],
) -> Made:
    resources = ExitStack()
    try:
        if not isinstance(device, str):
            resources.callback(device.close)
        _check(bundle, policy, options, lanes)
        count = lanes if lanes is not None else _useful_lanes(device if isinstance(device, str) else device.name)
        threads = max(1, usable_cpus() // count) if options.threads is None else options.threads
        if isinstance(device, str):
            pool = _pool_threads(device, threads, count)
            device = resources.enter_context(open_backend(device, threads=pool, timed=options.timed))
        plan = compile_plan(
            bundle,
            policy,
            precisions=device.precisions,
            max_rate=options.max_rate,
            max_seconds=options.max_seconds,
            batch=options.batch,
            lanes=count if device.shares_batches else 1,
            min_confidence=options.min_confidence,
        )
        if device.name == "tensorrt":
            plan, chosen = _on_engines(bundle, plan, options.engines)
            notes += chosen
        bundle.require_exact()  # every file is compared with its hash as it is opened
        return make(Shared(plan, device, threads, count, notes, resources))
    except MemoryError as error:
        resources.close()
        raise EngineError(
            f"{bundle.root}: not enough memory for its buffers ({error}); lower max_rate, max_seconds, batch or jobs"
        ) from error
    except BaseException:
        resources.close()
        raise


def _check(bundle: Bundle, policy: Policy, options: Options, lanes: int | None) -> None:
    if lanes is not None and lanes < 1:
        raise UsageError(f"jobs: expected at least 1, got {lanes}")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"threads: expected at least 1, got {options.threads}")
    if not options.allow_random and (random := untrained(bundle, policy)):
        raise UsageError(
            f"{bundle.root}: {', '.join(random)} has untrained weights (export --random-init): its answers mean"
            " nothing; --allow-random (allow_random=True) runs it all the same, for measurements"
        )


def _pool_threads(device: str, threads: int, lanes: int) -> int:
    """Threads of a graph's pool so that ``lanes`` calls at a time keep ``threads`` each at work.

    On the CPU all lanes run the same graph with one pool: a pool of n has n - 1 threads of its own, and each call
    brings the lane's.
    """
    return lanes * (threads - 1) + 1 if device == "cpu" else threads


def _useful_lanes(device: str) -> int:
    """Lanes where the user names no number: a GPU wants tracks that wait for it while the CPU prepares others."""
    return 1 if device == "cpu" else 2 * usable_cpus()


def _on_engines(bundle: Bundle, plan: Plan, folder: Path | None) -> tuple[Plan, tuple[str, ...]]:
    """The plan with engines instead of ONNX files, and what is to be said about them."""
    from edge_reclass.engines.choice import choose_engines, installed_target
    from edge_reclass.engines.store import engines_folder

    choices = choose_engines(bundle, plan.stages, installed_target(), engines_folder(bundle.digest, folder))
    stages = []
    for stage in plan.stages:
        if (choice := choices.get(stage.name)) is not None and isinstance(stage.encoder, WaveformEntry):
            onnx = tuple(file for key, file in stage.encoder.files.items() if key == choice.precision)
            on_cpu = choice.device == "cpu"
            stage = replace(
                stage,
                graph=choice.plan,
                precision=choice.precision,
                max_batch=choice.max_batch,
                device="cpu" if on_cpu else None,
                # An engine has a hash of its own; what it was built from need not be read.
                encoder_files=onnx if on_cpu else (),
            )
        stages.append(stage)
    notes = tuple(f"{choice.stage}: {choice.note}" for choice in choices.values() if choice.note)
    return replace(plan, stages=tuple(stages)), notes
