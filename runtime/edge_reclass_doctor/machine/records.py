"""What a probe of the machine says: plain structs whose names carry their units, ready for JSON.

What is not there, or may not be read, is None or empty, never a guess. Where it helps, ``Machine.reasons`` says why,
under the field's dotted name.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from edge_reclass.host import Gpu


class OperatingSystem(Struct, frozen=True):
    """``container`` names the kind of container that this runs in, where a hint of one was found."""

    name: str | None
    kernel: str | None
    architecture: str
    container: str | None


class Python(Struct, frozen=True):
    """``virtual_environment`` is its folder; ``sees_system_packages`` is None outside of one."""

    version: str
    executable: str
    virtual_environment: str | None
    sees_system_packages: bool | None


class ClockRange(Struct, frozen=True):
    """A clock and the limits that are set for it."""

    name: str
    current_mhz: float | None
    min_mhz: float | None
    max_mhz: float | None
    governor: str | None = None

    @property
    def locked(self) -> bool | None:
        """Whether the limits leave it one value; None where they are not known."""
        if self.min_mhz is None or self.max_mhz is None:
            return None
        return self.min_mhz == self.max_mhz


class Cpu(Struct, frozen=True):
    """``cores_usable`` is what this process may run on; ``quota_cores`` is a container's share, where it has one."""

    model: str | None
    architecture: str
    cores_usable: int
    cores_total: int | None
    quota_cores: float | None
    policies: tuple[ClockRange, ...]
    """The clocks of CPUs that share one (cpufreq policies)."""


class Memory(Struct, frozen=True):
    """``limit_bytes`` is a container's limit, where it has one."""

    total_bytes: int | None
    available_bytes: int | None
    swap_total_bytes: int | None
    swap_free_bytes: int | None
    limit_bytes: int | None


class Disk(Struct, frozen=True):
    """The file system that holds ``path``, or would: ``looked_at`` is its nearest folder that exists."""

    path: str
    looked_at: str
    free_bytes: int
    total_bytes: int


class NvmlReading(Struct, frozen=True):
    """What NVIDIA's management library says of one GPU; much of it is None on integrated GPUs."""

    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    """Since the driver was loaded: differences tell."""
    sm_mhz: float | None = None
    sm_max_mhz: float | None = None
    memory_total_bytes: int | None = None
    memory_free_bytes: int | None = None
    throttled_by: tuple[str, ...] = ()


class CudaSoftware(Struct, frozen=True):
    """CUDA software on the disk; ``binding`` is how Python reaches CUDA's memory (what is installed, pycuda first)."""

    toolkit: str | None
    cudnn: str | None
    binding: Literal["pycuda", "cuda-bindings"] | None
    binding_version: str | None


class TensorRt(Struct, frozen=True):
    """A TensorRT that this Python can find; nothing has been loaded."""

    flavour: Literal["tensorrt", "tensorrt-rtx"]
    version: str | None
    module: str
    path: str


class OnnxRuntime(Struct, frozen=True):
    """``providers`` is what the library was built with; whether one works here is another matter."""

    version: str
    providers: tuple[str, ...]


class PowerMode(Struct, frozen=True):
    """One of nvpmodel's modes."""

    id: int
    name: str


class Jetson(Struct, frozen=True):
    """``jetpack`` follows from the L4T release."""

    model: str
    soc: str | None
    l4t: str | None
    jetpack: str | None
    power_mode: PowerMode | None
    power_modes: tuple[PowerMode, ...]
    gpu_clocks: tuple[ClockRange, ...]
    emc_mhz: float | None
    clocks_locked: bool | None
    """Whether all clocks of CPU and GPU that can be read have one value left, as after ``jetson_clocks``."""
    overcurrent_events: int | None
    """Since the start of the machine: the supply was too weak and clocks were lowered."""


class ThermalZone(Struct, frozen=True):
    """``trip_celsius`` is the lowest temperature at which the system begins to slow down, where it says so."""

    name: str
    celsius: float | None
    trip_celsius: float | None


class PowerRail(Struct, frozen=True):
    """One measured supply line."""

    name: str
    watts: float | None


class PowerRecord(Struct, frozen=True):
    """``total_watts`` is the input rail's alone, None on boards without one: sub-rails are not added."""

    rails: tuple[PowerRail, ...]
    total_rail: str | None
    total_watts: float | None


class Fan(Struct, frozen=True):
    """``duty_percent`` is how hard it is driven, ``rpm`` how fast it turns."""

    name: str
    duty_percent: float | None
    rpm: int | None


class Machine(Struct, frozen=True):
    """Everything that :func:`edge_reclass_doctor.machine.probe` found."""

    os: OperatingSystem
    python: Python
    cpu: Cpu
    memory: Memory
    disks: tuple[Disk, ...]
    gpu: Gpu | None
    """The first NVIDIA GPU."""
    nvml: NvmlReading | None
    cuda: CudaSoftware
    tensorrt: TensorRt | None
    onnxruntime: OnnxRuntime | None
    jetson: Jetson | None
    thermal: tuple[ThermalZone, ...]
    power: PowerRecord
    fans: tuple[Fan, ...]
    libraries: dict[str, str | None]
    """Versions of what the runtime imports and may import, by distribution; None is not installed."""
    reasons: dict[str, str]
    """Why a value is None, by its dotted name, such as ``gpu`` or ``jetson.power_mode``."""


class Reading(Struct, frozen=True):
    """One look at what changes while a program runs; see :func:`edge_reclass_doctor.machine.sensors`."""

    seconds: float
    """Of ``time.perf_counter``."""
    temperatures_celsius: dict[str, float]
    cpu_mhz: tuple[float, ...]
    """One per cpufreq policy."""
    gpu_mhz: float | None
    gpu_temperature_celsius: float | None
    total_watts: float | None
    """The board's input rail (Jetson); None elsewhere."""
    gpu_watts: float | None
    """The GPU's own, from NVML."""
    gpu_energy_joules: float | None
    gpu_memory_used_bytes: int | None
    throttled_by: tuple[str, ...]
    overcurrent_events: int | None
