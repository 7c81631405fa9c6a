"""Stages of one encoder each: are its embeddings right here, and how fast is it beside torch and the ceilings?

Right means: the reference vectors that were made where the graphs come from (seen inputs), and what ONNX Runtime's CPU
makes of the same graph here (seen and unseen inputs), at every batch size, in every row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from edge_reclass.backends import Graph, GraphSource, open_backend
from edge_reclass.bundle import CASES, Bundle, WaveformEntry, agreement, load, load_reference, synthesise
from edge_reclass.errors import DeviceError, EngineError, MissingExtraError
from edge_reclass_bench.collector import Collector
from edge_reclass_bench.peers.contest import OURS, Contender, Task, hold
from edge_reclass_bench.peers.on_device import OrtOnDevice, TorchOnDevice
from edge_reclass_bench.peers.parity import same_direction
from edge_reclass_bench.peers.torch_encoders import Attention, torch_encoder
from edge_reclass_bench.products import products
from edge_reclass_bench.record import Measure
from edge_reclass_export.engine.verify import LIMITS, open_encoder
from gpu_check import BUNDLES
from gpu_check.ceilings import seconds_of
from gpu_check.filled import fill, tensors_of, weight
from gpu_check.journal import Begun, Check, Item, NotHere, Settings, Share, Work

Rows = NDArray[np.float32]

UNSEEN_SEED = 20_261_120
_LEAST_COSINE = 0.99
"""Of torch in half precision to our embedding: who does other work is not compared."""
_PASSES = (5, 200)


def run(work: Work) -> Iterator[Begun | Item]:
    """See the module; the stage ``compile`` holds torch.compile against torch at the largest batch."""
    torch.set_num_threads(work.settings.threads)
    names = list(BUNDLES) if work.task.stage == "compile" else [work.task.stage]
    for name in names:
        yield from filled(work, BUNDLES[name])
        if not (Path(work.settings.state) / BUNDLES[name]).is_dir():
            continue
        encoder = Encoder(work.settings, name)
        if work.task.stage != "compile":
            yield from measured(work, encoder, work.settings.device)
            continue
        expect = 3.0 if work.settings.tiny else 75.0
        batch = max(work.settings.batches)
        yield from work.do(f"{name} batch {batch}", partial(_contest, work, encoder, batch, compiled=True), expect)


def filled(work: Work, bundle: str) -> Iterator[Begun | Item]:
    """The bundle, complete in the state folder, unless it is there."""

    def fill_it() -> dict[str, Any]:
        archive = Path(work.settings.graphs) / f"{bundle}.tar.xz"
        if not archive.is_file():
            raise NotHere(f"{archive} is missing: benchmarks/carry/graphs.py makes it")
        return {"facts": {"remarks": "; ".join(fill(archive, folder)) or "every file is what it was"}}

    folder = Path(work.settings.state) / bundle
    if not folder.is_dir():
        yield from work.do(f"fill {bundle}", fill_it, 2.0 if work.settings.tiny else 20.0)


def measured(work: Work, encoder: Encoder, device: str) -> Iterator[Begun | Item]:
    """Ceilings, parity and times of one encoder on ``device``: cpu, cuda or tensorrt."""
    brief, name = work.settings.tiny, encoder.name
    for batch in work.settings.batches:
        yield from work.do(f"{name} products {batch}", partial(_products, encoder, batch), 1.0 if brief else 10.0)
    if device != "tensorrt":
        yield from work.do(f"{name} cpu reference", partial(_reference, encoder), 1.0 if brief else 20.0)
    for precision in ("fp16", "fp32"):
        check = partial(_parity, encoder, device, precision)
        yield from work.do(f"{name} {device} {precision} parity", check, 2.0 if brief else 30.0)
    for batch in work.settings.batches:
        contest = partial(_contest, work, encoder, batch, device=device)
        yield from work.do(f"{name} {device} batch {batch}", contest, 2.0 if brief else 30.0)


@dataclass
class Encoder:
    """One stage of a bundle, and what is right for it."""

    settings: Settings
    name: str
    _expected: dict[str, Rows] = field(default_factory=dict)

    @cached_property
    def bundle(self) -> Bundle:
        """Where it lies."""
        return load(Path(self.settings.state) / BUNDLES[self.name])

    @cached_property
    def entry(self) -> WaveformEntry:
        """As the manifest has it."""
        entry = self.bundle.manifest.stage(self.name).encoder
        if not isinstance(entry, WaveformEntry):
            raise TypeError(self.name)
        return entry

    @cached_property
    def inputs(self) -> Rows:
        """float32[rows, window]: the reference inputs, then as many of the same kinds that nobody has seen."""
        seen = load_reference(self.bundle.path(self.entry.reference or "")).inputs()
        return np.concatenate([seen, synthesise(self.entry.rate, self.entry.window_samples, UNSEEN_SEED)])

    @cached_property
    def reference(self) -> Rows:
        """What was right, in float32, where the graphs come from: float32[seen rows, dim]."""
        return load_reference(self.bundle.path(self.entry.reference or "")).embedding

    def expected(self, precision: str) -> Rows:
        """What this machine's CPU makes of all inputs: float32[rows, dim]."""
        if precision not in self._expected:
            with self.opened("cpu", precision, 4) as graph:
                self._expected[precision] = run_rows(graph, self.inputs, 4)[1]
        return self._expected[precision]

    def batch(self, size: int) -> Rows:
        """float32[size, window]: unseen inputs in turn, each turn shifted and a little quieter, no two alike."""
        rows, made = np.empty((size, self.entry.window_samples), np.float32), self.inputs[-len(CASES) :]
        for i in range(size):
            turn, case = divmod(i, len(made))
            rows[i] = np.roll(made[case], turn * 977) * np.float32(0.97**turn)
        return rows

    @contextmanager
    def opened(self, device: str, precision: str, max_batch: int) -> Iterator[Graph]:
        """The graph as the runtime opens it. Raises ``NotHere`` where there is no such backend or engine."""
        try:
            backend = open_backend(device, threads=self.settings.threads, timed=True)
        except MissingExtraError as error:
            raise NotHere(str(error)) from error
        with backend:
            file: GraphSource = self.bundle.file(self.entry.files[precision])  # type: ignore[index]
            if device == "tensorrt":
                try:
                    choice = backend.choose_graphs(self.bundle, {self.name: max_batch}, self.engines)[self.name]
                except (EngineError, DeviceError) as error:
                    raise NotHere(f"no engine: {error}") from error
                if choice.precision != precision:
                    raise NotHere(f"the engine is in {choice.precision}")
                file = choice.file
            graph = open_encoder(backend, file, self.entry, max_batch)
            try:
                yield graph
            finally:
                graph.close()

    @property
    def engines(self) -> Path:
        """Where the stage ``rtx`` builds them."""
        return Path(self.settings.state) / "engines"


def _products(encoder: Encoder, batch: int) -> dict[str, Any]:
    """The least that the encoder could take if everything but its products of matrices were free."""
    file = encoder.bundle.path(encoder.entry.files["fp32"])
    found = products(file, batch, encoder.entry.window_samples)
    flops = sum(count * product.flops for product, count in found.items())
    values = {f"{encoder.name} {batch} TFLOP": flops / 1e12}
    if encoder.settings.device == "cuda":
        # By the host's clock a small product takes as long as its call: no ceiling on a CPU.
        seconds = sum(count * seconds_of(product, "cuda") for product, count in found.items())
        values[f"{encoder.name} {batch} products ms"] = 1e3 * seconds
    return {"values": values}


def _reference(encoder: Encoder) -> dict[str, Any]:
    """Was everything filled as it was, and does this CPU compute as that one?"""
    names, order = list(CASES), list(range(len(encoder.reference)))
    got = encoder.expected("fp32")[: len(order)]
    return _fields([check("reference vectors", 4, order, got, encoder.reference, names, "fp32")])


def _parity(encoder: Encoder, device: str, precision: str) -> dict[str, Any]:
    names = [*CASES, *(f"unseen {case}" for case in CASES)]
    checks = []
    with encoder.opened(device, precision, max(encoder.settings.batches)) as graph:
        for batch in encoder.settings.batches:
            order, got = run_rows(graph, encoder.inputs, batch)
            checks.append(check("reference vectors", batch, order, got, encoder.reference, names, precision))
            against = f"CPU here, {precision}"
            checks.append(check(against, batch, order, got, encoder.expected(precision), names, precision))
    return _fields(checks)


def _fields(checks: list[Check]) -> dict[str, Any]:
    wrong = [f"batch {each.batch} against {each.against}: {each.wrong}" for each in checks if each.wrong]
    return {"checks": checks, "reason": "; ".join(wrong)}


def run_rows(graph: Graph, inputs: Rows, batch: int) -> tuple[list[int], Rows]:
    """All inputs in full batches, the last filled from the first; gives each result row's input, and the rows.

    Results are spoilt between runs, so that a row that nothing wrote is found.
    """
    order: list[int] = []
    got = []
    for start in range(0, len(inputs), batch):
        chosen = [(start + i) % len(inputs) for i in range(batch)]
        graph.input[:batch] = inputs[chosen]
        result = graph.run(batch)
        got.append(result.copy())
        if result.flags.writeable:
            result[...] = np.nan
        order += chosen
    return order, np.concatenate(got)


def check(
    against: str, batch: int, order: list[int], got: Rows, expected: Rows, names: list[str], precision: str
) -> Check:
    """The worst row's figures over those rows whose input ``expected`` has, held against the project's limits."""
    used = [position for position, row in enumerate(order) if row < len(expected)]
    rows = [agreement(expected[order[p]][None], got[p][None]) for p in used]
    worst = min(range(len(used)), key=lambda i: (rows[i].cosine, -rows[i].relative))
    limits = LIMITS[precision]
    wrong = [text for row in (rows[worst], max(rows, key=lambda r: r.relative)) for text in limits.broken_by(row)]
    return Check(
        against=against,
        batch=batch,
        rows=len(used),
        cosine=min(row.cosine for row in rows),
        # JSON has no infinity; what is no number is wrong anyway.
        relative=min(max(row.relative for row in rows), 1e30),
        worst_row=f"{names[order[used[worst]]]}, row {used[worst] % batch}",
        wrong=", ".join(dict.fromkeys(wrong)),
    )


def _contest(
    work: Work, encoder: Encoder, batch: int, *, device: str | None = None, compiled: bool = False
) -> dict[str, Any]:
    """All contenders by turns, in half precision (what computes in it)."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    settings, rows, facts = work.settings, encoder.batch(batch), dict[str, str]()
    with ExitStack() as held:
        makers = _compiled(encoder, rows) if compiled else _makers(encoder, rows, device or settings.device, held)
        ready: list[Contender] = []
        for name, make in makers.items():
            try:
                contender = make()
                answer = np.array(contender.run(0))
                contender.run(0)  # the second may capture
                if ready and (wrong := same_direction(_LEAST_COSINE)(np.array(ready[0].run(0)), answer)):
                    raise RuntimeError(f"does other work than {ready[0].name}: {wrong}")
            except Exception as error:  # the others go on
                facts[name] = f"{type(error).__name__}: {error}"[:500]
                continue
            ready.append(contender)
        if not ready:
            raise RuntimeError(f"nobody could be timed: {facts}")
        began = time.perf_counter()
        for contender in ready:
            contender.run(0)
        passes = int(settings.seconds * len(ready) / (time.perf_counter() - began))
        task, collector = Task(encoder.name, "encoder", [0], ready[0], ready[1:]), Collector()
        for event in hold(task, warm_up=1, repeats=min(max(passes, _PASSES[0]), _PASSES[1])):
            collector.add(event, 0)
    # Named by the contender alone, and without tracks: there are none.
    measures = [
        msgspec.structs.replace(measure, subject=measure.subject.partition(":")[0], tracks=[])
        for measure in collector.measures
    ]
    key, matmul = f"{encoder.name} {batch}", "fp16" if settings.device == "cuda" else "fp32"  # what a CPU computes in
    limits = (f"{key} TFLOP", f"{key} products ms", f"matmul {matmul} TFLOP/s")
    found = shares(measures, *map(work.value, limits))
    return {"facts": facts, "measures": measures, "shares": found, "reason": too_fast(found)}


def _makers(encoder: Encoder, rows: Rows, device: str, held: ExitStack) -> Mapping[str, Callable[[], Contender]]:
    """How each is made. Who replays a CUDA graph on a stream that is not its own may break the process: the last."""
    entry, batch, machine = encoder.entry, len(rows), "cpu" if device == "cpu" else "cuda"

    def ours() -> Contender:
        graph = held.enter_context(encoder.opened(device, "fp16", batch))

        def once(_: int) -> Rows:
            graph.input[:batch] = rows
            return graph.run(batch)

        def seconds() -> float | None:
            return None if (found := graph.device_times()) is None else found.compute

        return Contender(OURS, OURS, once, device_seconds=seconds)

    def ort(name: str, captured: bool) -> Contender:
        file = encoder.bundle.path(entry.files["fp16"])
        made = OrtOnDevice(file, rows, entry.dim, machine, threads=encoder.settings.threads, captured=captured)
        return Contender(name, name, made.run, device_seconds=made.device_seconds)

    makers: dict[str, Callable[[], Contender]] = {OURS: ours}
    if device != "tensorrt":
        makers["ONNX Runtime"] = partial(ort, "ONNX Runtime", False)
    attentions: tuple[Attention, ...] = ("eager", "sdpa")
    makers |= {f"torch {each}": partial(_torch, encoder, rows, machine, each) for each in attentions}
    if device == "cuda":
        makers["ONNX Runtime, CUDA graph"] = partial(ort, "ONNX Runtime, CUDA graph", True)
    return makers


def _compiled(encoder: Encoder, rows: Rows) -> Mapping[str, Callable[[], Contender]]:
    device = encoder.settings.device
    # On a CPU inductor would spend a minute in a C++ compiler to prove nothing about a GPU.
    options: dict[str, Any] = {"mode": "reduce-overhead"} if device == "cuda" else {"backend": "aot_eager"}
    plain = partial(_torch, encoder, rows, device, "sdpa")
    return {"torch sdpa": plain, "torch compile": partial(plain, options)}


def _torch(
    encoder: Encoder, rows: Rows, device: str, attention: Attention, compiled: dict[str, Any] | None = None
) -> Contender:
    tensors = tensors_of(encoder.bundle.root)

    def draw(name: str, shape: Any, _: float) -> torch.Tensor:
        full = f"{encoder.name}:{name}"
        return torch.from_numpy(weight(full, *tensors[full])) if full in tensors else torch.zeros(tuple(shape))

    provenance = encoder.bundle.manifest.provenance[encoder.name]
    # A CPU computes float16 graphs in float32, and torch's float16 is slow there.
    model: Any = torch_encoder(provenance, attention, torch.float16 if device == "cuda" else torch.float32, draw)
    if compiled is not None:
        model.body = torch.compile(model.body, dynamic=False, **compiled)
    made = TorchOnDevice(model, rows, encoder.entry.dim, device)
    name = f"torch {'compile' if compiled is not None else attention}"
    return Contender(name, name, made.run, device_seconds=made.device_seconds)


def shares(
    measures: list[Measure], tflop: float | None, products_ms: float | None, matmul: float | None
) -> list[Share]:
    """How much of each ceiling every contender reaches, by the device's clock where it has one."""
    found = []
    for host in (measure for measure in measures if measure.clock == "host"):
        device = [m for m in measures if m.subject == host.subject and m.clock == "device"]
        taken = device[0] if device else host
        milliseconds = median(taken.samples)
        rate = 0.0 if tflop is None else tflop / milliseconds * 1e3
        ceilings = {} if products_ms is None else {"its own products": products_ms / milliseconds}
        if matmul is not None and tflop is not None:
            ceilings["one large product"] = rate / matmul
        found.append(
            Share(
                contender=host.subject,
                clock=taken.clock,
                milliseconds=milliseconds,
                host_milliseconds=median(host.samples),
                tflops=rate,
                ceilings=ceilings,
            )
        )
    return found


def too_fast(found: list[Share]) -> str:
    """Nobody is faster than what the machine can do: a share above 100 % means that something is measured wrongly."""
    return "; ".join(
        f"{share.contender}: {100 * part:.0f} % of {ceiling}"
        for share in found
        for ceiling, part in share.ceilings.items()
        if part > 1.0
    )
