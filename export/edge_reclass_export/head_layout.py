"""The layers of a head out of a state dict: which tensors they are, and in which order they follow one another.

A state dict has names and shapes, and nothing of what stands between its tensors. Numbers in the names give an order
(``net.0`` before ``net.3``, ``fc1`` before ``fc2``), the shapes have to chain, and a place for the activation has to
be the only one. Wherever a second reading would fit as well, the head is refused with both readings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from edge_reclass.errors import UsageError
from edge_reclass_export.activations import ACTIVATIONS, Activation, parse_activation
from edge_reclass_export.checkpoints import Checkpoint, some
from edge_reclass_export.errors import CheckpointError
from edge_reclass_export.heads import BatchNorm, LayerNorm, LinearLayer, Step

EPSILON = 1e-5
"""Of BatchNorm1d and LayerNorm; torch's default, for no state dict holds it."""

_MOST = 24
"""Modules of a head at most; what has more is a whole network."""

_TRAINING = re.compile(r"criterion|loss|class_?weights?|pos_weight|metric|accuracy|confusion|num_batches_tracked", re.I)
"""Names of what only training needs."""

_BATCH_NORM = {"running_mean", "running_var"}


@dataclass(frozen=True)
class Module:
    """A module with tensors: its name in the file, what it computes, and the values that it takes and gives."""

    name: str
    step: LinearLayer | BatchNorm | LayerNorm
    inputs: int
    outputs: int

    @property
    def is_linear(self) -> bool:
        """Whether it is a linear layer; the others are norms."""
        return isinstance(self.step, LinearLayer)

    def __str__(self) -> str:
        return self.name or "the bare layer"


def head_modules(checkpoint: Checkpoint) -> tuple[list[Module], list[str]]:
    """The head's modules in the order of the file, and the names of tensors that only training needs.

    Raises ``CheckpointError`` where a tensor belongs to no linear layer, batch norm or layer norm.
    """
    left_out = [name for name in checkpoint.tensors if _TRAINING.search(name)]
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        if name not in left_out:
            parent, _, leaf = name.rpartition(".")
            groups.setdefault(parent, {})[leaf] = tensor
    if len(groups) > _MOST:
        raise CheckpointError(
            f"{checkpoint.path}: {len(groups)} modules ({some(groups)}): a whole network, expected its head alone:"
            " torch.save(model.classifier.state_dict(), 'head.pth')"
        )
    return [_module(checkpoint, name, tensors) for name, tensors in groups.items()], left_out


def _module(checkpoint: Checkpoint, name: str, tensors: Mapping[str, Tensor]) -> Module:
    dot = f"{name}." if name else ""
    weight, leaves = tensors.get("weight"), set(tensors)

    def take(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
        part = Checkpoint(checkpoint.path, checkpoint.sha256, {dot + leaf: tensors[leaf] for leaf in leaves})
        taken = part.take(
            {dot + leaf: shape for leaf, shape in shapes.items()}, optional=[f"{dot}bias", f"{dot}weight"]
        )
        return {key.removeprefix(dot): value.double() for key, value in taken.items()}

    if leaves <= {"weight", "bias"} and weight is not None and weight.ndim == 2:
        outputs, inputs = map(int, weight.shape)
        found = take(weight=(outputs, inputs), bias=(outputs,))
        bias = found.get("bias", torch.zeros(outputs, dtype=torch.float64))
        return Module(name, LinearLayer(found["weight"].numpy().T, bias.numpy()), inputs, outputs)
    if _BATCH_NORM <= leaves <= {*_BATCH_NORM, "weight", "bias"}:
        width = int(tensors["running_mean"].numel())
        found = take(**dict.fromkeys(("running_mean", "running_var", "weight", "bias"), (width,)))
        factor = found.get("weight", torch.ones(width)) / torch.sqrt(found["running_var"] + EPSILON)
        shift = found.get("bias", torch.zeros(width))
        return Module(name, BatchNorm(found["running_mean"].numpy(), factor.numpy(), shift.numpy()), width, width)
    if leaves == {"weight", "bias"} and weight is not None and weight.ndim == 1:
        width = int(weight.numel())
        found = take(weight=(width,), bias=(width,))
        return Module(name, LayerNorm(found["weight"].numpy(), found["bias"].numpy(), EPSILON), width, width)
    listed = ", ".join(f"{dot}{leaf} {list(tensor.shape)}" for leaf, tensor in tensors.items())
    raise CheckpointError(
        f"{checkpoint.path}: {listed} belongs to no linear layer, BatchNorm1d or LayerNorm; save the head alone"
        " (torch.save(model.classifier.state_dict(), 'head.pth')), or as .onnx with"
        " torch.onnx.export(head.eval(), (torch.zeros(2, WIDTH),), 'head.onnx', input_names=['features'],"
        " output_names=['logits'], dynamic_shapes=({0: 'batch'},), opset_version=18, dynamo=True, external_data=False)"
    )


def arrange(checkpoint: Checkpoint, modules: Sequence[Module], activation: Activation) -> list[Step]:
    """``modules`` in the one order that names and shapes allow, with ``activation`` between linear layers.

    Raises ``CheckpointError`` where no order fits, and ``UsageError`` where several do, or several places for the
    activation.
    """
    orders = _orders(modules)
    first = next(orders, None)
    if first is None:
        described = "; ".join(f"{module} takes {module.inputs} and gives {module.outputs}" for module in modules)
        raise CheckpointError(f"{checkpoint.path}: its layers do not follow one another: {described or 'none'}")
    second = next(orders, None)
    if second is not None:
        both = " and ".join(repr(",".join(module.name for module in order)) for order in (first, second))
        raise UsageError(f"{checkpoint.path}: the order of its layers is ambiguous: {both} fit; {_advice(first)}")
    steps: list[Step] = []
    linear = [place for place, module in enumerate(first) if module.is_linear]
    if not linear:
        raise CheckpointError(f"{checkpoint.path}: no linear layer; it has {some(checkpoint.tensors)}")
    active = {_place(checkpoint, first, low, high) for low, high in pairwise(linear) if activation.name != "none"}
    for place, module in enumerate(first):
        steps.append(module.step)
        if place in active:
            steps.append(activation)
    return steps


def arrange_as(checkpoint: Checkpoint, modules: Sequence[Module], layers: Sequence[str]) -> list[Step]:
    """``modules`` and activations in the order of ``layers``: names of modules, without their common prefix if wanted.

    Raises ``UsageError`` where a name is none, or a module is missing or a duplicate.
    """
    prefix = _common_prefix(modules)
    known = {module.name: module for module in modules} | {
        module.name.removeprefix(prefix): module for module in modules
    }
    steps: list[Step] = []
    named: list[str] = []
    for name in layers:
        if name in known:
            steps.append(known[name].step)
            named.append(known[name].name)
        elif name.partition(":")[0] in ACTIVATIONS:
            steps.append(parse_activation(name))
        else:
            raise UsageError(
                f"--head-layers: {checkpoint.path} has no layer {name!r}; it has"
                f" {', '.join(map(str, modules))}, activations are {', '.join(ACTIVATIONS)}"
            )
    if sorted(named) != sorted(module.name for module in modules):
        raise UsageError(
            f"--head-layers: expected each of {', '.join(map(str, modules))} once, got {', '.join(named) or 'none'}"
        )
    return steps


def _advice(order: Sequence[Module]) -> str:
    example = ",".join(module.name.removeprefix(_common_prefix(order)) for module in order)
    return f"say it with --head-layers, with the activations, e.g. --head-layers {example.replace(',', ',relu,', 1)}"


def _common_prefix(modules: Sequence[Module]) -> str:
    parts = [module.name.split(".")[:-1] for module in modules]
    common = parts[0]
    for other in parts[1:]:
        common = common[: next((i for i, (a, b) in enumerate(zip(common, other, strict=False)) if a != b), len(other))]
    return "".join(f"{part}." for part in common)


def _place(checkpoint: Checkpoint, order: Sequence[Module], low: int, high: int) -> int:
    """Behind which module, from the linear layer ``low`` on to the one at ``high``, the activation stands."""
    if high == low + 1:
        return low
    stretch = order[low : high + 1]
    numbers = [_last_number(module.name) for module in stretch]
    gaps: list[int] = []
    if None not in numbers and len({number[0] for number in numbers if number}) == 1:
        counted = [number[1] for number in numbers if number]
        gaps = [low + i for i, (a, b) in enumerate(pairwise(counted)) if b > a + 1]
    if len(gaps) != 1:
        raise UsageError(
            f"{checkpoint.path}: where the activation stands between {', '.join(map(str, stretch))} is ambiguous;"
            f" {_advice(order)}"
        )
    return gaps[0]


def _last_number(name: str) -> tuple[str, int] | None:
    """``net.3`` as (``net.``, 3)."""
    sequence, _, number = name.rpartition(".")
    return (sequence, int(number)) if number.isdecimal() else None


def _orders(modules: Sequence[Module]) -> Iterator[list[Module]]:
    """Every order in which numbers in the names rise and each module takes what the one before gives."""
    before = {
        module.name: {other.name for other in modules if _precedes(other.name, module.name)} for module in modules
    }

    def extend(order: list[Module], left: list[Module]) -> Iterator[list[Module]]:
        if not left:
            yield order
        names = {module.name for module in left}
        for module in left:
            if not before[module.name] & names and (not order or order[-1].outputs == module.inputs):
                yield from extend([*order, module], [other for other in left if other is not module])

    return extend([], list(modules))


def _precedes(first: str, second: str) -> bool:
    """Whether two names are equal up to a number, which is smaller in the first."""
    for a, b in zip(re.split(r"(\d+)", first), re.split(r"(\d+)", second), strict=False):
        if a != b:
            return a.isdecimal() and b.isdecimal() and int(a) < int(b)
    return False
