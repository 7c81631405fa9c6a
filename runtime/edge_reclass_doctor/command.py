"""``edge-reclass doctor``: one page on this machine, a bundle and its engines, and how to fix each problem.

Reads only. No session is opened and no CUDA context made, so it can be run beside a working service.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_reclass.errors import UsageError

if TYPE_CHECKING:
    from edge_reclass_doctor.machine import Machine, Run
    from edge_reclass_doctor.report import Report

_TO_BUILD = ("engine-missing", "engine-stale", "engine-damaged")


def diagnose(
    bundle: Path | None = None,
    engines: Path | None = None,
    device: str = "auto",
    *,
    bench: bool = False,
    machine: Machine | None = None,
    run: Run | None = None,
    root: Path = Path("/"),
) -> Report:
    """Look at machine, bundle and engines, and say what keeps ``device`` from running the bundle.

    Args:
        bundle: a bundle's directory; None is the one that the service has, on a machine that was provisioned, else the
            starter bundle.
        engines: the engine store; None is that of the service or ``EDGE_RECLASS_ENGINES``, else a state folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``.
        bench: also advise on what makes measurements vary: clocks and power mode.
        machine: what is known of the machine; None probes this one.
        run: runs the programs that are asked; None is ``machine.run_tool``.
        root: where an installation and the kernel are looked for; tests have one of their own.

    Raises:
        UsageError: no such device.
    """
    import edge_reclass_doctor.machine as machines
    from edge_reclass import __version__
    from edge_reclass.bundle import starter_path
    from edge_reclass.engines import engine_command, engines_folder
    from edge_reclass_doctor.advice import advise
    from edge_reclass_doctor.appliance import (
        appliance_problems,
        bundle_in_use,
        engine_store,
        find_appliance,
        restore_command,
        survey_appliance,
    )
    from edge_reclass_doctor.bundles import survey_bundle
    from edge_reclass_doctor.devices import judge_devices, relevant_problems
    from edge_reclass_doctor.engines import engine_target, survey_engines
    from edge_reclass_doctor.report import ALL_DEVICES, FORMAT, Report
    from edge_reclass_doctor.software import check_loads, software_problems

    devices = ("auto", *reversed(ALL_DEVICES))
    if device not in devices:
        raise UsageError(f"--device: expected one of {', '.join(devices)}, got {device!r}")
    run = machines.run_tool if run is None else run
    installed = find_appliance(root)
    of_service = installed is not None and bundle is None
    if bundle is None:
        bundle = bundle_in_use(root) if of_service else starter_path()
    if of_service and engines is None and not os.environ.get("EDGE_RECLASS_ENGINES"):
        engines = engine_store(root)

    def command(verb: Literal["build", "verify"], stages: Sequence[str] = (), *options: str) -> str:
        if of_service:  # root alone writes its engines, and builds them as the service's user
            return "sudo edge-reclass-appliance provision --yes"
        named = () if engines is None else ("--engines", str(engines))
        return engine_command(verb, bundle, stages, *options, *named)

    loaded, bundle_state, problems = (
        survey_bundle(bundle, restore_command(installed)) if installed and of_service else survey_bundle(bundle)
    )
    # Without a manifest there is no digest, and so no engine to look for; the store is named all the same.
    folder = engines_folder("" if loaded is None else loaded.digest, engines)
    here = machines.probe(paths=(bundle, folder)) if machine is None else machine
    loads = check_loads(here, run)
    target, why = engine_target(here, loads.tensorrt)
    engines_state, wrong = survey_engines(loaded, bundle_state.stages, folder, target, why, command)
    problems += [*software_problems(here, loads), *wrong]
    states = judge_devices(here, problems, engines_state)
    chosen = next((one.device for one in states if one.usable and device in ("auto", one.device)), None)
    decisive = chosen or (ALL_DEVICES[-1] if device == "auto" else device)
    builds = target is not None and any(one.code in _TO_BUILD for one in wrong)
    problems = relevant_problems(device, chosen, decisive, here, problems)
    problems += advise(here, engines_state, builds, command, bench)
    appliance = None
    if installed is not None:
        appliance = survey_appliance(installed, run, root)
        problems += appliance_problems(installed, appliance, here)
    return Report(
        format=FORMAT,
        version=__version__,
        wanted=device,
        chosen=chosen,
        exit_code=next(one.exit_code for one in states if one.device == decisive),
        machine=here,
        bundle=bundle_state,
        engines=engines_state,
        devices=tuple(states),
        appliance=appliance,
        problems=tuple(sorted(problems, key=lambda problem: problem.severity != "problem")),
    )


def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle. [default: the service's, else the starter]")] = None,
    engines: Annotated[
        Path | None,
        typer.Option(help="Folder of the TensorRT engines. [default: $EDGE_RECLASS_ENGINES, else a state folder]"),
    ] = None,
    device: Annotated[str, typer.Option(help="The device that is wanted: auto | cpu | cuda | tensorrt.")] = "auto",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Everything that was found.")] = False,
    bench: Annotated[
        bool, typer.Option("--bench", help="Also say what makes measurements vary: clocks and power mode.")
    ] = False,
    format: Annotated[str, typer.Option("--format", "-f", help="text | json.")] = "text",
) -> None:
    """Look at this machine, a bundle, and the service where it is installed; say what is wrong and how to fix it.

    A line for each area: ✓ well, ! advice, ✗ a problem. Then each problem, with the command that fixes it.

    Reads only, and takes no GPU memory: it may run beside a working service. That a device computes the right numbers
    is for verify to show.

    Exit codes: 0 the wanted device can run the bundle (auto: any device can), 2 wrong usage, 4 the bundle or an engine
    that is needed is missing, stale or damaged, 5 the wanted device cannot be used.
    """
    from edge_reclass.run import StdoutClosed, json_text, open_output
    from edge_reclass_doctor.summary import summary
    from edge_reclass_doctor.text import details

    if format not in {"text", "json"}:
        raise UsageError(f"--format: expected text or json, got {format!r}")
    report = diagnose(bundle, engines, device, bench=bench)
    try:
        with open_output(None) as write:
            if format == "json":
                write(json_text(report.to_json(), write.utf8) + "\n")
            else:
                write((f"{details(report)}\n\n" if verbose else "") + summary(report) + "\n")
    except StdoutClosed:
        # Who reads the first lines only (| head) gets the exit code all the same, and no traceback from the last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if report.exit_code:
        raise typer.Exit(report.exit_code)
