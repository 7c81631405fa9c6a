"""One set of encoders, asked under several policies: the cascade, the full ensemble, each stage alone.

Every subject is a true :class:`Cascade` on the same opened stages, so that baselines cost no memory of their own and
differ in nothing but their policy. One at a time, from one thread.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

from edge_reclass.backends import Backend
from edge_reclass.bundle import Bundle
from edge_reclass.cascade import Cascade, Options, Plan, Policy, Shared, Stage, open_with

__all__ = ["Opened", "under"]


class Opened:
    """A bundle's stages on a device. A context manager."""

    def __init__(self, bundle: Bundle, device: str | Backend, widest: Policy, options: Options) -> None:
        """Open the stages of ``widest``, which must have those of every policy asked for later.

        Raises:
            UsageError, BundleError, EngineError, DeviceError: see ``Cascade.open``.
        """
        open_with(bundle, device, widest, options, self._take)

    def _take(self, shared: Shared) -> None:
        """Open the stages: a device on which that fails cannot be used, and ``auto`` goes on to the next."""
        with ExitStack() as opened:
            opened.callback(shared.close)
            self._shared = shared
            self._stages = {stage.name: stage for stage in shared.open_stages(opened)}
            self._resources = opened.pop_all()

    @property
    def device(self) -> str:
        """The device that is really used."""
        return self._shared.device

    @property
    def notes(self) -> tuple[str, ...]:
        """See ``Cascade.notes``."""
        return self._shared.notes

    @property
    def plan(self) -> Plan:
        """The plan of the widest policy."""
        return self._shared.plan

    def cascade(self, policy: Policy) -> Cascade:
        """A cascade under ``policy`` on the opened stages; it must not be used after this object was closed."""
        return Cascade(_View(self._shared, under(self._shared.plan, policy), self._stages))

    def close(self) -> None:
        """Release the stages and the device."""
        self._resources.close()

    def __enter__(self) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
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


class _View(Shared):
    """What ``Cascade`` asks of :class:`Shared`, on stages that are open already."""

    def __init__(self, base: Shared, plan: Plan, stages: dict[str, Stage]) -> None:  # the base's would open all again
        self.plan = plan
        self.device = base.device
        self.lanes = 1
        self.notes = base.notes
        self._resources = ExitStack()
        self._open = stages

    def open_stages(self, resources: ExitStack) -> list[Stage]:
        """The stages of the plan; they belong to :class:`Opened`, so ``resources`` closes nothing."""
        del resources
        return [self._open[stage.name] for stage in self.plan.stages]
