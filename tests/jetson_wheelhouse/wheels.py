"""Small wheels made by tests: nothing but metadata, and enough of it for a whole target."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

from wheelhouse.archive import Source
from wheelhouse.contents import Wheel, read_wheels
from wheelhouse.targets import TARGETS

DEBIAN = TARGETS["debian12"]
SOURCE = Source("c" * 40, False, 1_700_000_000)


def make_wheel(
    folder: Path, name: str, version: str, *lines: str, tag: str = "py3-none-any", files: Iterable[str] = ()
) -> Path:
    """A wheel with its metadata, and ``files`` of one line."""
    stem = f"{name.replace('-', '_')}-{version}"
    file = folder / f"{stem}-{tag}.whl"
    metadata = "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines, "", "text"])
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"{stem}.dist-info/METADATA"), metadata)
        for path in files:
            archive.writestr(zipfile.ZipInfo(path), f"# {path}\n")
    return file


def make_wheels(folder: Path) -> list[Wheel]:
    """All that ``debian12`` needs, in a new folder."""
    folder.mkdir()
    make_wheel(
        folder,
        "edge-reclass",
        "1.2.3",
        "Provides-Extra: cpu",
        "Provides-Extra: gpu",
        "Requires-Dist: numpy>=2",
        "Requires-Dist: onnxruntime; extra == 'cpu'",
        "Requires-Dist: onnxruntime-gpu; extra == 'gpu'",
        "License-Expression: Apache-2.0",
        files=("edge_reclass/__init__.py", "edge_reclass_appliance/__main__.py", "edge_reclass_appliance/a/b.py"),
    )
    make_wheel(
        folder,
        "numpy",
        "2.2.6",
        "Requires-Python: >=3.10",
        "Requires-Dist: tomli; python_version < '3.11'",
        "Requires-Dist: colorama; sys_platform == 'win32'",
        "License: BSD",
        tag="cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64",
    )
    make_wheel(folder, "onnxruntime", "1.23.2", "Classifier: License :: OSI Approved :: MIT License")
    make_wheel(folder, "pip", "26.3")
    return read_wheels(folder)
