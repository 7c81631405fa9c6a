"""``ceilings``: what this device can do at most with the products of matrices that an encoder is made of.

One product of 8192 × 8192 is a ceiling that no encoder can reach: its own are narrow. So each of its products is done
alone, at the batch that the cascade gives it, through the same backend as the encoder; their sum is the least that the
encoder could take if everything else were free. An encoder that is faster than its products is a sign that something is
measured wrongly, and is called that.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from edge_reclass.backends import Backend, PlainFile, open_backend
from edge_reclass.bundle import BundleFile
from edge_reclass.cascade import compile_plan, largest_batches
from edge_reclass.errors import DeviceError
from edge_reclass_bench.clocks import perf_counter
from edge_reclass_bench.products import Product, alone, products
from edge_reclass_bench.record import Absent
from edge_reclass_bench.scenarios.context import Context, Event, Key, Missing, Passed, Ran, Sample

_MANY = 4
"""A graph with so many products against one with a single one."""
_RUNS = 7
_SECONDS = 0.3
_MOST_BYTES = 1 << 30
"""Of the right operands of one graph."""
_MOST_LEFT_BYTES = 1 << 28
"""Of the left operand, which lies in memory twice; a larger product is done in part."""
_ENOUGH_ROWS = 1024
"""A product of so many rows is as fast, row by row, as a longer one."""


def measure_ceilings(context: Context) -> Iterator[Event]:
    """Emit for every stage with a graph what it takes, and what its products take; ms per run at its largest batch.

    TensorRT would need an engine for each product. There both are measured by ONNX Runtime's CUDA provider, on the same
    GPU.
    """
    name, notes = context.device, []
    if name == "tensorrt":
        name = "cuda"
        notes = ["by ONNX Runtime's CUDA provider, graph and products: TensorRT would need an engine for each product"]
    try:
        device = open_backend(name, threads=context.threads)
    except DeviceError as error:
        if not notes:
            raise
        again = f"edge-reclass bench run PATH... --bundle {context.bundle.name} --device tensorrt --scenario ceilings"
        why = f"they take ONNX Runtime's CUDA provider, which cannot be used here: {error}; then: {again}"
        yield Missing(Absent(what="ceilings", reason=why))
        return
    watch, stages = context.watch(), 0
    with device, watch:
        batches = largest_batches(context.bundle, context.policy.stages, context.options)
        graphs = device.choose_graphs(context.bundle, batches, context.options.engines)
        plan = compile_plan(context.bundle, context.policy, graphs, context.options)
        for stage in plan.stages:
            if not isinstance(stage.graph, BundleFile) or stage.encoder.window_samples is None:
                continue
            encoder, width = stage.encoder, stage.encoder.window_samples
            graph = device.open_graph(
                stage.graph,
                input_name="waveform",
                output_name="embedding",
                width=width,
                output_width=encoder.dim,
                max_batch=stage.max_batch,
            )
            graph.input[:] = np.random.default_rng(0).standard_normal(graph.input.shape, np.float32)
            whole = _time(lambda: graph.run(stage.max_batch))  # noqa: B023 - called at once
            graph.close()
            dtype = np.float16 if stage.precision == "fp16" else np.float32
            found = products(stage.graph.path, stage.max_batch, width)
            if not found:
                yield Missing(Absent(what=f"ceilings of {stage.name}", reason="its graph has no product of matrices"))
                continue
            seconds = sum(count * _alone(device, product, dtype) for product, count in found.items())
            flops = sum(count * product.flops for product, count in found.items())
            key = Key("ceilings", "cascade", "graph", stage.name)
            samples = [
                Sample(key, 1e3 * whole),
                Sample(key._replace(part="products"), 1e3 * seconds),
                Sample(key._replace(part="rate", unit="GFLOP/s", better="higher"), flops / seconds / 1e9),
            ]
            yield Passed("cascade", 0, whole, samples)
            stages += 1
            notes.append(f"{stage.name}: {stage.precision}")
    if stages:
        yield Ran(watch.run("ceilings", "cascade", warm_up=1, passes=1, count=stages, notes=notes, memory=False))


def in_part(product: Product) -> Product:
    """``product``, or so much of it, by rows and groups, that its left operand is not too large."""
    groups, rows = product.groups, product.rows
    while 4 * groups * rows * product.inner > _MOST_LEFT_BYTES and groups * rows > 1:
        if rows > _ENOUGH_ROWS or groups == 1:
            rows = -(-rows // 2)
        else:
            groups = -(-groups // 2)
    return product._replace(groups=groups, rows=rows)


def _alone(device: Backend, whole: Product, dtype: type[np.generic]) -> float:
    """Seconds of one product."""
    times = []
    product = in_part(whole)
    many = max(2, min(_MANY, int(_MOST_BYTES // (4 * product.groups * product.inner * product.columns))))
    with tempfile.TemporaryDirectory(prefix="edge-reclass-bench-") as folder:
        for count in (1, many):
            path = Path(folder) / f"{count}.onnx"
            onnx.save(alone(product, count, dtype), path)
            graph = device.open_graph(
                PlainFile(path), input_name="waveform", output_name="embedding", width=1, output_width=1, max_batch=1
            )
            graph.input[:] = 1.0
            times.append(_time(lambda: graph.run(1)))  # noqa: B023 - called at once
            graph.close()
    return max((times[1] - times[0]) / (many - 1), 1e-9) * whole.flops / product.flops


def _time(run: Callable[[], object]) -> float:
    """Median seconds of a run, after one that is not counted."""
    run()
    times: list[float] = []
    while len(times) < _RUNS or sum(times) < _SECONDS:
        began = perf_counter()
        run()
        times.append(perf_counter() - began)
        if len(times) >= 1000:
            break
    return median(times)
