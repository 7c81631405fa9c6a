"""A folder that looks like a Jetson's or a Raspberry Pi's root, with fake tools on the PATH, for provision.sh.

Real: provision.sh and edge_reclass_appliance, bundles' files, links, units, tar, locks. Fake: the Python of the device
(this one says it is another version), its virtual environments, pip (it writes a fake ``edge-reclass``), useradd,
systemctl and uname. Every call of a fake is a line in ``calls``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance import warm

JETSON = Path(__file__).resolve().parents[2] / "jetson"


@dataclass(frozen=True)
class Kind:
    """A kind of machine, as its files show it. ``tensorrt`` is the version of the package python3-libnvinfer."""

    target: str
    python: str
    os_release: str
    l4t: str = ""
    tensorrt: str = ""
    model: str = ""
    memory_kib: int = 0
    cores: int = 4
    nodes: tuple[str, ...] = ()
    machine: str = "aarch64"
    drivers: tuple[str, ...] = ()
    groups: tuple[str, ...] = ("root:x:0:", "video:x:44:", "audio:x:29:")


JETPACK6 = Kind(
    target="jetpack6",
    python="3.10",
    os_release='ID=ubuntu\nVERSION_ID="22.04"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    l4t="# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025",
    tensorrt="10.3.0.30-1+cuda12.5",
    model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    memory_kib=7_650_336,
    cores=6,
    nodes=(
        "nvmap",
        "nvhost-ctrl-gpu",
        "nvhost-gpu",
        "nvgpu/igpu0/ctrl",
        "nvgpu/igpu0/channel",
        "dri/renderD128",
        "video0",
    ),
)
JETPACK7 = Kind(
    target="jetpack7",
    python="3.12",
    os_release='ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04.3 LTS"\n',
    l4t="# R39 (release), REVISION: 2.0, GCID: 41000000, BOARD: generic, EABI: aarch64, DATE: Mon Jun  1 2026",
    tensorrt="10.16.0.72-1+cuda13.2",
    model="NVIDIA Jetson AGX Thor Developer Kit",
    memory_kib=128_800_000,
    cores=14,
    nodes=(
        "nvmap",
        "nvidia0",
        "nvidiactl",
        "nvidia-uvm",
        "nvgpu/igpu-0000:01:00.0/ctrl",
        "dri/renderD128",
        "dri/card1",
    ),
    drivers=("nvidia", "nvidia-modeset", "nvidiactl", "drm"),
    groups=("root:x:0:", "video:x:44:", "render:x:104:"),
)
DEBIAN12 = Kind(
    target="debian12",
    python="3.11",
    os_release='PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n',
    model="Raspberry Pi 5 Model B Rev 1.0",
    memory_kib=8_245_872,
)


@dataclass
class Device:
    """One fake machine: its ``root``, the fakes on its PATH, and the log of what they were called with."""

    base: Path
    kind: Kind
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.base / "root"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/edge-reclass"

    def provision(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """What ``provision.sh`` runs; wheelhouses and bundles of these tests are unsigned, but for test_signed.py's."""
        return self.run_provision("--insecure", *arguments, **environ)

    def run_provision(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = ["provision", "--root", str(self.root), *arguments]
        return warm.run("provision.sh", command, self.environment(environ))

    def script(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """``provision.sh`` itself."""
        return self.run([str(JETSON / "provision.sh"), "--root", str(self.root), *arguments], environ)

    def install(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.provision("--yes", "--wheelhouse", str(self.wheelhouse), *arguments, **environ)

    def bundle(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """``bundle``."""
        unsigned = ("--insecure",) if arguments[:1] == ("install",) else ()
        return self.appliance("bundle", "--root", str(self.root), *arguments, *unsigned, **environ)

    def appliance(
        self, *arguments: str, renames: int | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """What the installed command runs; ``renames`` as warm.py says."""
        return warm.run("edge-reclass-appliance", arguments, self.environment(environ), renames)

    def tool(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """The installed command itself."""
        tool = self.root / "opt/edge-reclass/bin/edge-reclass-appliance"
        return self.run([sys.executable, "-IB", str(tool), *arguments], environ)

    def run(self, command: Sequence[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=self.environment(environ),
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        """Of every command on this device."""
        return {
            "PATH": f"{self.base / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.base),
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(self.base),
            "FAKE_ROOT": str(self.root),
            "FAKE_CALLS": str(self.base / "calls"),
            "FAKE_PYTHON": str(Path(sys.executable).resolve()),  # without site: it starts at once
            **self.environ,
            **more,
        }

    @property
    def wheelhouse(self) -> Path:
        return self.base / f"edge-reclass-0.1.0-{self.kind.target}.tar"

    def calls(self, name: str = "") -> list[str]:
        """The calls of one fake since the last :meth:`forget`."""
        log = self.base / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if line.split(" ", 1)[0].startswith(name)]

    def forget(self) -> None:
        (self.base / "calls").unlink(missing_ok=True)

    def tree(self) -> dict[str, tuple[Any, ...]]:
        """Everything below the root: kind, mode, content or target, and time of change."""
        found: dict[str, tuple[Any, ...]] = {}
        for path in sorted(self.root.rglob("*")):
            info = path.lstat()
            if stat.S_ISLNK(info.st_mode):
                content: object = path.readlink()
            elif stat.S_ISREG(info.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                content = None
            if path.name not in {".lock", "bundles"}:  # an incoming bundle comes and goes in there
                found[str(path.relative_to(self.root))] = (info.st_mode, content, info.st_mtime_ns)
        return found

    def current(self, link: str = "current") -> str:
        return str((self.state / "bundles" / link).readlink())

    def unit(self, name: str) -> str:
        return (self.root / "etc/systemd/system" / name).read_text()

    def become(self, kind: Kind) -> None:
        """The same disk after an upgrade: the system's files change, ours stay."""
        self.kind = kind
        write_system(self.root, kind)
        write_tools(self.base, kind)
        write_wheelhouse(self.base, kind)


def make(base: Path, kind: Kind) -> Device:
    base.mkdir(parents=True, exist_ok=True)
    device = Device(base, kind)
    device.root.mkdir()
    write_system(device.root, kind)
    write_tools(base, kind)
    write_wheelhouse(base, kind)
    return device


def write_system(root: Path, kind: Kind) -> None:
    for folder in (
        "etc",
        "proc/device-tree",
        "var/lib/dpkg",
        "dev",
        "usr/lib/python3/dist-packages",
        "etc/systemd/system",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/os-release").write_text(kind.os_release)
    (root / "etc/passwd").touch()
    (root / "etc/group").write_text("".join(f"{line}\n" for line in kind.groups))
    drivers = "".join(f"{number:3} {name}\n" for number, name in enumerate(("mem", *kind.drivers), 1))
    (root / "proc/devices").write_text(f"Character devices:\n{drivers}\nBlock devices:\n  7 loop\n259 drm\n")
    (root / "proc/meminfo").write_text(f"MemTotal:       {kind.memory_kib} kB\nMemFree:         1000 kB\n")
    (root / "proc/cpuinfo").write_text("".join(f"processor\t: {i}\n\n" for i in range(kind.cores)))
    (root / "proc/device-tree/model").write_bytes(kind.model.encode() + b"\0")
    packages = {"base-files": "12"} | ({"python3-libnvinfer": kind.tensorrt} if kind.tensorrt else {})
    (root / "var/lib/dpkg/status").write_text(
        "\n".join(
            f"Package: {name}\nStatus: install ok installed\nPriority: optional\nVersion: {version}\n"
            for name, version in packages.items()
        )
        + "\nPackage: python3-libnvinfer-lean\nStatus: deinstall ok config-files\nVersion: 99.0.0-1\n"
    )
    if kind.l4t:
        (root / "etc/nv_tegra_release").write_text(kind.l4t + "\n# KERNEL_VARIANT: oot\n")
    for node in kind.nodes:
        (root / "dev" / node).parent.mkdir(parents=True, exist_ok=True)
        (root / "dev" / node).touch()
    module = root / "usr/lib/python3/dist-packages/tensorrt.py"
    if kind.tensorrt:
        module.write_text(f"__version__ = {kind.tensorrt.split('-')[0]!r}\n")
    else:
        module.unlink(missing_ok=True)


_LOG = 'printf "%s\\n" "$(basename "$0") $*" >> "$FAKE_CALLS"\n'

_TOOLS = {
    "python3": 'exec "$FAKE_PYTHON" "$@"\n',
    "uname": 'echo "@MACHINE@"\n',
    # The device's Python: it says its own version, makes fake environments, and runs everything else with the test's.
    "python@PYTHON@": """case "$1 ${2:-} ${3:-}" in
  "-I -c import sys; print("*) echo "@PYTHON@"; exit ;;
  "-I -m venv")
    printf '%s\\n' "venv ${*:4}" >> "$FAKE_CALLS"
    folder="${*: -1}"
    mkdir -p "$folder/bin"
    cat > "$folder/bin/python" << END
#!/bin/bash
export FAKE_VENV="$folder" PYTHONPATH="$FAKE_ROOT/usr/lib/python3/dist-packages"
if [ "\\$1 \\$2" = "-I -c" ]; then  # as a real environment, whose packages -I leaves in place
  paths='import os, sys; sys.path += os.environ["PYTHONPATH"].split(":"); exec(sys.argv.pop(1))'
  exec "$FAKE_PYTHON" -S -I -c "\\$paths" "\\${@:3}"
fi
exec "$FAKE_PYTHON" -S "\\$@"
END
    chmod +x "$folder/bin/python"
    exit ;;
esac
exec "$FAKE_PYTHON" -S "$@"
""",
    "useradd": _LOG
    + """name="${*: -1}"
echo "$name:x:990:990::/var/lib/edge-reclass:/usr/sbin/nologin" >> "$FAKE_ROOT/etc/passwd"
""",
    "systemctl": """arguments=()
for word in "$@"; do case $word in --quiet | --root=*) ;; *) arguments+=("$word") ;; esac; done
mark="$FAKE_ROOT/etc/systemd/system/.enabled-${arguments[1]:-}"
case ${arguments[0]} in
  is-enabled) [ -e "$mark" ] && echo enabled; exit ;;
  is-active) exit ;;
  show) echo "${FAKE_RELOAD:-no}"; exit ;;
  enable)
    [ -e "$FAKE_ROOT/etc/systemd/system/${arguments[1]}" ] || { echo "no unit ${arguments[1]}" >&2; exit 1; }
    touch "$mark" ;;
  disable) rm -f "$FAKE_ROOT/etc/systemd/system/.enabled-${arguments[-1]}" ;;
esac
printf '%s\\n' "systemctl ${arguments[*]}" >> "$FAKE_CALLS"
""",
}


def write_tools(base: Path, kind: Kind) -> None:
    folder = base / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in _TOOLS.items():
        path = folder / name.replace("@PYTHON@", kind.python)
        path.write_text("#!/bin/bash\n" + text.replace("@PYTHON@", kind.python).replace("@MACHINE@", kind.machine))
        path.chmod(0o755)


_FAKE_PIP = """
import os, pathlib, signal, sys
venv, fail = pathlib.Path(os.environ["FAKE_VENV"]), os.environ.get("FAKE_FAIL", "")
with open(os.environ["FAKE_CALLS"], "a") as log:
    print("pip", *sys.argv[1:], file=log)
for option in ("--no-index", "--require-hashes", "--find-links"):
    if option not in sys.argv:
        sys.exit(f"the fake pip was called without {option}")
(venv / "half-written").write_text("x")
if fail == "pip":
    sys.exit("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE")
if fail == "pip-killed":
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)
program = venv / "bin" / "edge-reclass"
program.write_text("#!/bin/bash\\nexec " + str(venv / "bin" / "python") + " " + os.environ["FAKE_PROGRAM"] + ' "$@"\\n')
program.chmod(0o755)
(venv / "half-written").unlink()
"""


def write_wheelhouse(base: Path, kind: Kind) -> None:
    """An archive as jetson/wheelhouse/README.md describes it, with a fake pip inside that is run out of its wheel."""
    folder = base / "wheelhouse" / f"edge-reclass-0.1.0-{kind.target}"
    shutil.rmtree(folder.parent, ignore_errors=True)
    (folder / "wheels").mkdir(parents=True)
    program = Path(__file__).with_name("fake_program.py")
    with zipfile.ZipFile(folder / "wheels" / "pip-26.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pip/__init__.py", "")
        wheel.writestr("pip/__main__.py", f"import os\nos.environ['FAKE_PROGRAM'] = {str(program)!r}\n{_FAKE_PIP}")
    (folder / "requirements.lock").write_text(f"# for {kind.target}\nedge-reclass==0.1.0 --hash=sha256:{'0' * 64}\n")
    target = {"name": kind.target, "python": kind.python, "machine": kind.machine}
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "project": "edge-reclass", "target": target}))
    archive = base / f"edge-reclass-0.1.0-{kind.target}.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, folder.name)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (base / f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n")


def write_bundle(folder: Path, name: str, content: str = "weights") -> Path:
    """A bundle that the fake program takes: a manifest with one encoder, and a file with its hash."""
    (folder / "encoders").mkdir(parents=True)
    (folder / "encoders/one.onnx").write_text(content)
    digest = hashlib.sha256(content.encode()).hexdigest()
    manifest = {
        "name": name,
        "stages": [{"name": "one", "encoder": {"kind": "waveform"}}],
        "files": {"encoders/one.onnx": digest},
    }
    (folder / "bundle.yaml").write_text(json.dumps(manifest))
    (folder / "engines").mkdir()
    (folder / "engines/from-elsewhere").write_text("engines never travel")
    return folder
