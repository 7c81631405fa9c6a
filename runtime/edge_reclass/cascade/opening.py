"""What the cascades of one process share: the plan, the device, and the encoders; opened once, for one or more lanes.

A lane is what works on one track at a time: stages and workspace of its own, on a thread of its own. ``auto`` means the
first device of ``backends.DEVICES`` that opens with the bundle at hand; opening is the only proof that it can be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edge_reclass import host
from edge_reclass.backends import DEVICES, Backend, backend_class, open_backend
from edge_reclass.bundle import Bundle, load, starter_path
from edge_reclass.cascade.encoders import OpenRequest
from edge_reclass.cascade.encoders.base import is_cheap_ahead, open_graph
from edge_reclass.cascade.plan import Options, check_options, compile_plan, largest_batches, untrained
from edge_reclass.cascade.policy import Policy
from edge_reclass.cascade.shared_batches import SharedGraph
from edge_reclass.cascade.stages import Stage, open_stage
from edge_reclass.cascade.workspace import Workspace
from edge_reclass.errors import DeviceError, EngineError, UsageError

AUTO = "auto"


@dataclass(frozen=True)
class Lane:
    """What one thread works with."""

    stages: tuple[Stage, ...]
    """In running order."""
    workspace: Workspace


def load_bundle(bundle: str | Path | Bundle | None) -> Bundle:
    """A bundle by its directory; None is the starter bundle of the package. Raises ``BundleError``."""
    return bundle if isinstance(bundle, Bundle) else load(starter_path() if bundle is None else bundle)


def open_model(
    bundle: Bundle, device: str | Backend, policy: Policy, options: Options, *, lanes: int | None = 1
) -> SharedModel:
    """Open a bundle on a device.

    Args:
        device: ``cpu``, ``cuda``, ``tensorrt``, ``auto``, or an opened backend, which then belongs to the model.
        lanes: tracks to work on at a time; None: as many as the device can make use of.

    Raises:
        UsageError, BundleError, EngineError, DeviceError: see ``Cascade.open``.
    """
    if device != AUTO:
        return SharedModel(bundle, device, policy, options, lanes)
    notes: list[str] = []
    no_gpu = _why_no_gpu()
    if no_gpu is not None:
        notes.append(no_gpu)
    *preferred, last = DEVICES
    for name in preferred:
        if no_gpu is not None and backend_class(name).needs_nvidia_gpu:
            continue
        try:
            return SharedModel(bundle, name, policy, options, lanes, tuple(notes))
        except (DeviceError, EngineError) as error:
            notes.append(f"not {name}: {error}")
    return SharedModel(bundle, last, policy, options, lanes, tuple(notes))


def _why_no_gpu() -> str | None:
    try:
        host.probe_gpu()
    except DeviceError as error:
        return str(error)
    return None


class SharedModel:
    """An opened bundle: what its lanes share, and the lanes. Made by :func:`open_model`."""

    def __init__(
        self,
        bundle: Bundle,
        device: str | Backend,
        policy: Policy,
        options: Options,
        lanes: int | None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._graphs: dict[str, SharedGraph] = {}
        with ExitStack() as resources:
            if not isinstance(device, str):
                resources.callback(device.close)
            _check(bundle, policy, options, lanes)
            kind = backend_class(device) if isinstance(device, str) else type(device)
            count = kind.useful_lanes() if lanes is None else lanes
            threads = max(1, host.usable_cpus() // count) if options.threads is None else options.threads
            if isinstance(device, str):
                device = open_backend(device, threads=kind.pool_threads(threads, count), timed=options.timed)
                resources.callback(device.close)
            shared = count if device.shares_batches else 1
            batches = largest_batches(bundle, policy.stages, options, shared)
            graphs = device.choose_graphs(bundle, batches, options.engines)
            bundle.require_exact()  # every file is compared with its hash as it is opened
            self.plan = compile_plan(bundle, policy, graphs, options, shared)
            self.device = device.name
            self.notes = notes + tuple(f"{name}: {choice.note}" for name, choice in graphs.items() if choice.note)
            """What a user should know: why ``auto`` took no other device, which stages run elsewhere."""
            try:
                self.lanes = self._open_lanes(device, threads, count, resources)
            except MemoryError as error:
                what = f"{bundle.root}: not enough memory for its buffers ({error})"
                raise EngineError(f"{what}; lower max_rate, max_seconds, batch or jobs") from error
            self._resources = resources.pop_all()

    @property
    def batches(self) -> Mapping[str, tuple[int, ...]]:
        """For each stage that lanes share: how many batches of 0, 1, 2, … windows were run."""
        return {name: tuple(graph.batches) for name, graph in self._graphs.items()}

    def close(self) -> None:
        """Release lanes, encoders and device. Closing twice is allowed."""
        self.lanes = ()
        self._resources.close()

    def _open_lanes(self, device: Backend, threads: int, count: int, resources: ExitStack) -> tuple[Lane, ...]:
        # Heads are a few small products: on any device the CPU has done them before a copy would have begun.
        heads = resources.enter_context(open_backend("cpu", threads=1))
        backends: dict[str | None, Backend] = {None: device}
        for stage in self.plan.stages:
            if stage.device is not None and stage.device not in backends:
                pool = backend_class(stage.device).pool_threads(threads, count)
                backends[stage.device] = resources.enter_context(open_backend(stage.device, threads=pool))
            backend = backends[stage.device]
            if count > 1 and backend.shares_batches and stage.graph is not None:
                opened = open_graph(stage, backend)
                with ExitStack() as unless_shared:
                    unless_shared.callback(opened.close)
                    ahead = is_cheap_ahead(opened, max(stage.steps, default=0))
                    unless_shared.pop_all()
                graph = SharedGraph(opened, stage.name, ahead=ahead)
                resources.callback(graph.close)
                self._graphs[stage.name] = graph
        lanes = []
        for _ in range(count):
            stages = []
            for stage in self.plan.stages:
                shared = self._graphs.get(stage.name)
                made = open_stage(OpenRequest(self.plan, stage, backends[stage.device], threads, shared), heads)
                resources.callback(made.close)
                stages.append(made)
            lanes.append(Lane(tuple(stages), Workspace(self.plan)))
        return tuple(lanes)


def _check(bundle: Bundle, policy: Policy, options: Options, lanes: int | None) -> None:
    if lanes is not None and lanes < 1:
        raise UsageError(f"jobs: expected at least 1, got {lanes}")
    check_options(options)
    if not options.allow_random and (random := untrained(bundle, policy)):
        raise UsageError(
            f"{bundle.root}: {', '.join(random)} has untrained weights (export --random-init): its answers mean"
            " nothing; --allow-random (allow_random=True) runs it all the same, for measurements"
        )
