"""Builds the engines that are missing or stale, proves each before it counts, and says where it falls back.

The order is FP16, FP32, ONNX Runtime on the CPU; parts that need float32 inside FP16 are the graph's own, chosen at
export. A precision that gave wrong numbers, or whose graph TensorRT cannot take, leaves a record with the reason, so
that neither the runtime nor the next build takes it, and the engine that was taken names what it stands in for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from edge_reclass.backends import Backend, GraphSource, Library, PlainFile
from edge_reclass.bundle import Bundle, BundleFile, file_entry, refuse_external_data
from edge_reclass.engines import (
    PLAN,
    EngineRecord,
    Found,
    Rejected,
    Target,
    describe_target,
    differences,
    engine_command,
)
from edge_reclass.errors import BundleError, DeviceError, MissingExtraError
from edge_reclass.host import Gpu
from edge_reclass_export.engine.audit import (
    NO_VECTORS,
    GraphCase,
    GraphResult,
    all_expected,
    verification,
    verify_graph,
)
from edge_reclass_export.engine.process import BuildFailure, BuildJob, Built, OnEvent, build_engine
from edge_reclass_export.engine.stages import Candidate, EngineStage, survey_candidate, survey_stage
from edge_reclass_export.engine.store import EngineStore
from edge_reclass_export.engine.verify import reference_expected
from edge_reclass_export.engine.worker import BuildProblem, compute_capability

# A failure of these kinds is the machine's at this moment, not the graph's: another precision would not help.
_NOT_THE_GRAPH = {"memory", "disk", "crash"}


@dataclass(frozen=True)
class BuildResult:
    """What became of one stage, or (in a dry run) would become.

    ``action``: ``build`` or ``keep`` an engine of ``precision``; ``cpu`` where no engine will do and ONNX Runtime takes
    the stage; ``failed`` where nothing can be said, with the reason in ``detail``.
    """

    stage: str
    action: Literal["build", "keep", "cpu", "failed"]
    precision: str | None
    detail: str
    folder: Path | None = None
    record: EngineRecord | None = None
    rejected: tuple[Rejected, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether the engine ran here and agreed with the reference vectors."""
        return self.record is not None and self.record.verification is not None


@dataclass(frozen=True)
class DeviceCheck:
    """Runs an engine on this machine's GPU against the bundle's reference vectors, where that can be done.

    ``open_device`` and ``open_cpu`` open the backends of the engines and of the heads.
    """

    bundle: Bundle
    target: Target
    gpu: Gpu | None
    open_device: Callable[[], Backend]
    open_cpu: Callable[[], Backend]

    def run(self, plan: GraphSource, stage: str, precision: str, batches: Sequence[int]) -> GraphResult:
        """Check an engine of a store (a path), or one that was just built (``PlainFile``).

        A device that fails on it is a mismatch; where it cannot be run here, the result is ``not verified``.

        Raises:
            BundleError: reference vectors or a head were altered, or a head does not fit.
            MemoryError: the device has too little memory for the engine.
        """
        case = GraphCase(stage, precision, plan, tuple(batches))
        if self.gpu is None:
            return GraphResult(case, "not verified", "this machine has no GPU to run it on")
        if self.gpu.sm != self.target.sm:
            return GraphResult(case, "not verified", f"it is for SM {self.target.sm}, the GPU here has {self.gpu.sm}")
        if reference_expected(self.bundle, stage) is None:
            return GraphResult(case, "not verified", NO_VECTORS)
        try:
            device, cpu = self.open_device(), self.open_cpu()
        except (DeviceError, MissingExtraError) as error:
            return GraphResult(case, "not verified", str(error))
        with device, cpu:
            return verify_graph(self.bundle, case, all_expected(self.bundle), device, cpu)


def dry_run(
    bundle: Bundle, library: Library, store: EngineStore, stages: Sequence[EngineStage], *, rebuild: bool = False
) -> Iterator[BuildResult]:
    """What :class:`EngineBuild` would do for each stage, and why. Reads only.

    Raises:
        BundleError: an ONNX file that would be read was altered.
        DeviceError: this TensorRT would not build for the target.
    """
    for stage in stages:
        rejected: list[Rejected] = []
        outcome: BuildResult | None = None
        for candidate, found in survey_stage(store.root, stage, exact=True):
            if found.status == "rejected" and not rebuild:
                rejected.append(Rejected(candidate.precision, found.reason))
                continue
            if found.status == "present" and not rebuild and found.engine is not None:
                record, folder = found.engine.record, found.engine.folder
                outcome = BuildResult(
                    stage.name, "keep", candidate.precision, f"present, {found.reason}", folder, record
                )
            else:
                bundle.verify([candidate.file])
                _require_target(library, candidate.key.target)
                outcome = BuildResult(stage.name, "build", candidate.precision, _why(store, stage, candidate, found))
            break
        yield replace(outcome, rejected=tuple(rejected)) if outcome else _on_cpu(stage.name, rejected)


def _require_target(library: Library, target: Target) -> None:
    """TensorRT says only on the GPU what it builds for; TensorRT-RTX has a list."""
    if library.flavour == "tensorrt-rtx":
        try:
            compute_capability(library.api, target.sm)
        except BuildProblem as problem:
            raise DeviceError(str(problem)) from problem


def _why(store: EngineStore, stage: EngineStage, candidate: Candidate, found: Found) -> str:
    why = f"{found.status}: {found.reason}"
    if found.status in {"present", "rejected"}:
        return f"{why}; --rebuild"
    if found.status != "stale":
        return why
    other = survey_candidate(store.root, stage, candidate)
    if other.status == "present" and other.engine is not None:
        differs = "; ".join(differences(other.engine.record.key, candidate.key, exact=True))
        return f"stale: {differs}; only that differs, so verify and the runtime can use it as it is"
    return why


def _on_cpu(stage: str, rejected: Sequence[Rejected]) -> BuildResult:
    return BuildResult(stage, "cpu", None, f"no engine will do ({_reasons(rejected)})", rejected=tuple(rejected))


def _reasons(rejected: Sequence[Rejected]) -> str:
    return "; ".join(f"{one.precision}: {one.reason}" for one in rejected)


def default_timing_cache(root: Path, target: Target) -> Path | None:
    """Where measured kernel times are kept between builds; None for TensorRT-RTX, which measures nothing."""
    if target.flavour == "tensorrt-rtx":
        return None
    return root / f"timing-{target.version}-sm{target.sm.replace('.', '')}.cache"


@dataclass
class _Tried:
    """The precisions of one stage that were not taken, of this run and of earlier ones.

    ``recorded`` is false once one of them has left no record, so that the runtime does not know of it.
    """

    rejected: list[Rejected] = field(default_factory=list)
    recorded: bool = True
    earlier: bool = False


@dataclass(frozen=True)
class EngineBuild:
    """One run of ``build``: everything that is the same for all stages."""

    bundle: Bundle
    library: Library
    target: Target
    store: EngineStore
    check: DeviceCheck
    timing_cache: Path | None = None
    rebuild: bool = False
    fallback: bool = True
    workspace: int | None = None

    def run(self, stage: EngineStage, on_event: OnEvent) -> BuildResult:
        """Keep or build the first candidate that does; every candidate's ONNX file is checked before it is read.

        Raises:
            BundleError: a file of the bundle was altered, or manifest, encoder and head do not fit together.
            DeviceError: this TensorRT does not build for the target at all.
            UsageError: the engines' folder cannot be written.
        """
        tried = _Tried()
        for candidate in stage.candidates:
            found = survey_candidate(self.store.root, stage, candidate, exact=True)
            if found.engine is not None and found.status == "rejected" and not self.rebuild:
                tried.rejected.append(Rejected(candidate.precision, found.reason))
                tried.earlier = True
                continue
            if found.engine is not None and found.status == "present" and not self.rebuild:
                outcome = self._keep(stage, candidate, found.engine.record, tried)
            else:
                outcome = self._build(stage, candidate, on_event, tried)
            if outcome is not None:
                return replace(outcome, rejected=tuple(tried.rejected))
        if self.fallback and tried.recorded:
            return _on_cpu(stage.name, tried.rejected)
        return self._failed(stage, tried)

    def _failed(self, stage: EngineStage, tried: _Tried) -> BuildResult:
        reasons = _reasons(tried.rejected)
        if self.fallback:
            detail = f"{stage.name}: no engine could be built ({reasons})"
        elif tried.earlier:
            again = engine_command("build", self.bundle.root, [stage.name], "--rebuild")
            detail = f"{stage.name} {reasons} (rejected by an earlier run); next: {again}  tries again"
        else:
            detail = f"{stage.name} {reasons}; next: leave --precision out, so that another one is tried"
        return BuildResult(stage.name, "failed", tried.rejected[-1].precision, detail, rejected=tuple(tried.rejected))

    def _keep(
        self, stage: EngineStage, candidate: Candidate, record: EngineRecord, tried: _Tried
    ) -> BuildResult | None:
        """An engine that is there; where it has not been verified yet, that is tried now."""
        folder = self.store.folder(record)
        if record.verification is not None:
            return BuildResult(stage.name, "keep", candidate.precision, "present, verified", folder, record)
        checked = self.check.run(folder / PLAN, stage.name, candidate.precision, record.key.profile.batches)
        if checked.status == "mismatch":
            record = msgspec.structs.replace(record, rejected=checked.detail, verification=None)
            self.store.update(record)
            tried.rejected.append(Rejected(candidate.precision, checked.detail))
            return None
        proved = verification(self.bundle, checked)
        fresh = msgspec.structs.replace(record, verification=proved, not_verified=checked.detail or None)
        if fresh != record:
            self.store.update(fresh)
        how = "verified" if proved else f"not verified: {checked.detail}"
        return BuildResult(stage.name, "keep", candidate.precision, f"present, {how}", folder, fresh)

    def _build(self, stage: EngineStage, candidate: Candidate, on_event: OnEvent, tried: _Tried) -> BuildResult | None:
        file = self.bundle.file(candidate.file)
        file.check()
        with self.store.workspace() as work:
            try:
                job = BuildJob(
                    what=f"{stage.name} {candidate.precision} ({candidate.file}) with {describe_target(self.target)}",
                    library=self.library,
                    # TensorRT opens files by name: it gets a copy of the bytes that were hashed, in our own folder.
                    onnx=_copied(file, work),
                    key=candidate.key,
                    dim=stage.encoder.dim,
                    timing_cache=self.timing_cache,
                    workspace=self.workspace,
                )
                built = build_engine(job, work, on_event)
                checked = self.check.run(PlainFile(built.plan), stage.name, candidate.precision, stage.profile.batches)
            except BuildFailure as failure:
                if failure.kind == "device":
                    raise DeviceError(str(failure)) from failure
                if failure.kind == "mismatch":
                    raise BundleError(str(failure)) from failure
                if failure.kind in _NOT_THE_GRAPH or not self.fallback:
                    return BuildResult(stage.name, "failed", candidate.precision, str(failure))
                if failure.kind == "unsupported":
                    self._reject(work, stage, candidate, failure.verdict, tried)
                else:
                    # TensorRT took the graph and built nothing from it, which may be for want of memory.
                    tried.rejected.append(Rejected(candidate.precision, failure.verdict))
                    tried.recorded = False
                return None
            except OSError as error:
                return BuildResult(stage.name, "failed", candidate.precision, f"{file.path} cannot be copied: {error}")
            except MemoryError as error:
                return BuildResult(
                    stage.name,
                    "failed",
                    candidate.precision,
                    f"the engine was built, but the device has too little memory to run it ({error});"
                    " stop other programs or lower --max-batch",
                )
            if checked.status == "mismatch":
                self._reject(work, stage, candidate, checked.detail, tried)
                self._keep_timing_cache(built)
                return None
            entry = file_entry(built.plan)
            record = self._record(
                stage,
                candidate,
                sha256=entry.sha256,
                bytes=entry.bytes,
                build_seconds=round(built.seconds, 3),
                build_peak_bytes=built.peak_bytes,
                verification=verification(self.bundle, checked),
                not_verified=checked.detail or None,
                instead_of=tuple(tried.rejected),
            )
            self.store.publish(work, built.plan, record)
            self._keep_timing_cache(built)
        return BuildResult(
            stage.name, "build", candidate.precision, _how_built(built, record), self.store.folder(record), record
        )

    def _record(self, stage: EngineStage, candidate: Candidate, **found: Any) -> EngineRecord:
        return EngineRecord(
            format=1,
            key=candidate.key,
            bundle=self.bundle.name,
            stage=stage.name,
            precision=candidate.precision,
            file=candidate.file,
            **found,
        )

    def _reject(self, work: Path, stage: EngineStage, candidate: Candidate, reason: str, tried: _Tried) -> None:
        tried.rejected.append(Rejected(candidate.precision, reason))
        self.store.publish(work, None, self._record(stage, candidate, rejected=reason))

    def _keep_timing_cache(self, built: Built) -> None:
        if built.new_timing_cache is not None and self.timing_cache is not None:
            self.store.keep_timing_cache(built.new_timing_cache, self.timing_cache)


def _copied(file: BundleFile, folder: Path) -> Path:
    content = file.read()
    refuse_external_data(content, file.path)
    copy = folder / file.path.name
    copy.write_bytes(content)
    return copy


def _how_built(built: Built, record: EngineRecord) -> str:
    how = "verified" if record.verification else f"not verified: {record.not_verified}"
    return (
        f"built in {built.seconds:.1f} s, at most {built.peak_bytes / 1e9:.2f} GB of memory,"
        f" {record.bytes / 1e6:.1f} MB; {how}"
    )
