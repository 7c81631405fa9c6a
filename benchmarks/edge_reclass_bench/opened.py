"""One set of encoders, asked under several policies: the cascade, the full ensemble, each stage alone.

Every subject is a true :class:`Cascade` on the same opened stages, so that baselines cost no memory of their own and
differ in nothing but their policy. One at a time, from one thread.
"""

from __future__ import annotations

from dataclasses import replace

from edge_reclass.backends import Backend
from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Cascade, Options, Plan, Policy, open_model

__all__ = ["Opened", "under"]


class Opened:
    """A bundle's stages on a device. A context manager."""

    def __init__(self, bundle: Bundle, device: str | Backend, widest: Policy, options: Options) -> None:
        """Open the stages of ``widest``, which must have those of every policy asked for later.

        Raises:
            UsageError, BundleError, EngineError, DeviceError: see ``Cascade.open``.
        """
        self._model = open_model(bundle, device, widest, options)

    @property
    def device(self) -> str:
        """The device that is really used."""
        return self._model.device

    @property
    def notes(self) -> tuple[str, ...]:
        """See ``Cascade.notes``."""
        return self._model.notes

    @property
    def plan(self) -> Plan:
        """The plan of the widest policy."""
        return self._model.plan

    def cascade(self, policy: Policy) -> Cascade:
        """A cascade under ``policy`` on the opened stages; it must not be used after this object was closed."""
        plan, (lane,) = under(self._model.plan, policy), self._model.lanes
        stages = {stage.name: stage for stage in lane.stages}
        return Cascade(self._model, replace(lane, stages=tuple(stages[s.name] for s in plan.stages)), plan=plan)

    def close(self) -> None:
        """Release the stages and the device."""
        self._model.close()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def under(plan: Plan, policy: Policy) -> Plan:
    """``plan`` cut down to the stages of ``policy``: what ``compile_plan`` would give, in the buffers of ``plan``.

    Only that is decoded and resampled which the policy's stages need.
    """
    by_name = {stage.name: stage for stage in plan.stages}
    needed = {need for name in policy.stages for need in by_name[name].head_inputs if need != name}
    stages = tuple(replace(by_name[name], needed_later=name in needed) for name in policy.stages)
    used = {stage.signal for stage in stages}
    return replace(
        plan,
        policy=policy,
        stages=stages,
        excerpts=tuple(dict.fromkeys(stage.signal.excerpt for stage in stages)),
        signals={signal: size for signal, size in plan.signals.items() if signal in used},
        min_seconds=max(stage.encoder.min_seconds for stage in stages),
    )
