"""Bundles from somebody who means harm, or whose disk does: each is a BundleError, and nothing of it is used."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

import bundles
from edge_reclass import Cascade
from edge_reclass.backends import PlainFile
from edge_reclass.backends.ort.cpu import OrtBackend
from edge_reclass.bundle.limits import MANIFEST_BYTES
from edge_reclass.bundle.loading import MANIFEST, load
from edge_reclass.bundle.onnx_external import refuse_external_data
from edge_reclass.bundle.reference import ReferenceVectors, load_reference
from edge_reclass.cascade.plan import choose_policy
from edge_reclass.cascade.policy import Policy, Step
from edge_reclass.errors import BundleError, EngineError, UsageError
from edge_reclass_doctor.command import diagnose


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return bundles.make_bundle(tmp_path / "b", [bundles.fma_stage(), bundles.waveform_stage("mert")])


def with_text(root: Path, change: Callable[[str], str]) -> str:
    """Rewrite the manifest's text; gives the message with which it is refused, everywhere in the same way."""
    file = root / MANIFEST
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(BundleError) as refused:
        load(root)
    assert refused.value.exit_code == 4
    with pytest.raises(BundleError):
        Cascade.open(root)
    report = diagnose(root)
    assert report.exit_code == 4 and str(refused.value) in report.bundle.faults[0]
    return str(refused.value)


YAML = {
    "an anchor": ("provenance: &a {x: 1}\n", "anchors are not supported"),
    "an anchor on a scalar": ("provenance: {x: &a 1}\n", "anchors are not supported"),
    "an alias of nothing": ("provenance: *a\n", "not supported"),
    "a recursive alias": ("provenance: &a {x: *a}\n", "anchors are not supported"),
    "a bomb of aliases": ("provenance: {a: &a [x, x], b: &b [*a, *a], c: [*b, *b]}\n", "anchors are not supported"),
    "a tag": ("provenance: {x: !!int abc}\n", "tags are not supported"),
    "a date's tag": ("provenance: {x: !!timestamp nope}\n", "tags are not supported"),
    "a tag of its own": ("provenance: {x: !who what}\n", "tags are not supported"),
    "a call": ("provenance: !!python/object/apply:os.system [true]\n", "tags are not supported"),
    "the empty tag": ("provenance: {x: ! 1}\n", "tags are not supported"),
    "deep lists": ("provenance: {x: " + "[" * 3000 + "]" * 3000 + "}\n", "nested deeper than 32 levels"),
    "deep mappings": ("provenance: " + "{x: " * 40 + "1" + "}" * 40 + "\n", "nested deeper than 32 levels"),
    "NUL": ('provenance: {x: "a\\0b"}\n', "without NUL and lone surrogates"),
    "half a character": ('provenance: {x: "\\ud800"}\n', "without NUL and lone surrogates"),
    "a character beyond Unicode": ('provenance: {x: "\\UFFFFFFFF"}\n', "not valid YAML"),
    "a second document": ("---\na: 1\n", "expected one document"),
    "a key that is a list": ("provenance: {? [a] : 1}\n", "expected a text key"),
    "a number as a key": ("provenance: {1: 1}\n", "expected a text key, got 1; quote it"),
    "a duplicate key below": ("provenance: {x: 1, x: 2}\n", "duplicate key 'x'"),
    "a tag directive": ("...\n%TAG ! tag:example.com,2000:\n---\n{}\n", "expected one document"),
}


@pytest.mark.parametrize("case", YAML)
def test_yaml_that_no_manifest_needs_is_refused(root: Path, case: str) -> None:
    lines, part = YAML[case]
    assert part in with_text(root, lambda text: text + lines)


@pytest.mark.parametrize("value", ["2024-13-45", "2024-01-01", "1:59", "0x_", "0b_", "017", "1_000", "=", "1e5"])
def test_what_yaml_takes_for_dates_and_odd_numbers_is_text(root: Path, value: str) -> None:
    file = root / MANIFEST
    file.write_text(file.read_text(encoding="utf-8") + f"provenance: {{x: {value}}}\n", encoding="utf-8")
    assert load(root).manifest.provenance == {"x": value}


def test_a_manifest_of_a_gigabyte_is_not_read(root: Path) -> None:
    with (root / MANIFEST).open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(BundleError, match=f"expected at most {MANIFEST_BYTES} bytes"):
        load(root)


def test_a_manifest_that_is_no_text_or_no_file(root: Path, tmp_path: Path) -> None:
    (root / MANIFEST).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="expected UTF-8 text"):
        load(root)
    (root / MANIFEST).unlink()
    os.mkfifo(root / MANIFEST)
    with pytest.raises(BundleError, match="not a regular file"):
        load(root)
    with pytest.raises(BundleError, match="null byte"):
        load("a\0b")
    with pytest.raises(BundleError, match="cannot be read"):
        load(tmp_path / ("x" * 5000))


NAMES = {
    "a stage with a line end": {"stages": [bundles.fma_stage() | {"name": "fma\n"}]},
    "a policy with escapes": {"policies": {"fa\nst\x1b[2J": bundles.POLICY}},
    "a policy without letters": {"policies": {"": bundles.POLICY}},
    "a genre that reverses what follows": {"genres": ["Bl\u202eues", "B"]},
    "a genre with an isolate": {"genres": ["Bl\u2066ues", "B"]},
    "a genre with a mark": {"genres": ["Bl\u200fues", "B"]},
    "a genre with zero width": {"genres": ["Bl\u200bues", "B"]},
    "a genre of two lines": {"genres": ["Bl\u2028ues", "B"]},
    "a genre with space at its end": {"genres": ["Rock", "Rock "]},
    "a genre of nothing": {"genres": [" ", "B"]},
    "a genre without end": {"genres": ["B" * 201, "A"]},
    "a bundle with escapes": {"name": "b\x9b2J"},
    "a bundle that reverses": {"name": "b\u202e"},
}


@pytest.mark.parametrize("case", NAMES)
def test_names_that_cannot_be_printed_are_refused(root: Path, case: str) -> None:
    bundles.edit_manifest(root, **NAMES[case])
    with pytest.raises(BundleError) as refused:
        load(root)
    assert str(refused.value).isprintable()


def test_a_policy_must_not_hide_a_preset(root: Path) -> None:
    bundles.edit_manifest(root, policies={"fmj-ev": bundles.POLICY}, default_policy="fmj-ev")
    with pytest.raises(BundleError, match="'fmj-ev' is the name of a preset"):
        choose_policy(load(root))


def test_joiners_inside_of_words_are_names(root: Path) -> None:
    genres = ["می\u200cخواهم", "क्\u200dष", "演歌"]
    bundles.edit_manifest(root, genres=genres)
    assert load(root).manifest.genres == genres


PATHS = (".", "", "/etc/passwd", "../x", "a//b", "./a", "a\\b", MANIFEST, "a\x1b[2J", "a\u202eb")


@pytest.mark.parametrize("file", PATHS)
def test_files_that_are_no_paths_of_a_bundle_are_refused(root: Path, file: str) -> None:
    files = dict(bundles.read_manifest(root)["files"])
    files[file] = {"sha256": "0" * 64, "bytes": 0}
    bundles.edit_manifest(root, files=files)
    with pytest.raises(BundleError, match="expected a plain relative path"):
        load(root)


SIZES: dict[str, tuple[dict[str, Any], str]] = {
    "a window of an hour": (
        {"stages": [bundles.fma_stage(encoder={"window_samples": 3600 * 16_000, "hop_samples": 16_000})]},
        "expected at most 600 s",
    ),
    "half a million windows": (
        {"stages": [bundles.waveform_stage("mert", encoder={"hop_samples": 1})]},
        "expected at most 36000 windows",
    ),
    "an excerpt of a day": ({"excerpt": {"start": "center", "seconds": 86_400.0}}, "<= 3600"),
    "an embedding without end": ({"stages": [bundles.waveform_stage("mert", encoder={"dim": 10**12})]}, "<= 65536"),
    "many genres": ({"genres": [f"g{i}" for i in range(5000)]}, "<= 4096"),
    "many stages": ({"stages": [bundles.fma_stage() | {"name": f"s{i}"} for i in range(40)]}, "<= 32"),
    "a weight that overflows": (
        {"policies": {"p": {"vote": "soft", "steps": [{"after": "fma", "weights": {"fma": 1e308}}]}}},
        "<= 1000000",
    ),
    "a weight that is no number": (
        {"policies": {"p": {"vote": "soft", "steps": [{"after": "fma", "weights": {"fma": float("nan")}}]}}},
        "weights",
    ),
}


@pytest.mark.parametrize("case", SIZES)
def test_sizes_that_nobody_means_are_refused(root: Path, case: str) -> None:
    changes, part = SIZES[case]
    bundles.edit_manifest(root, **changes)
    with pytest.raises(BundleError) as refused:
        load(root)
    assert part in str(refused.value)


@pytest.mark.parametrize("weight", [1e308, 1e-320, float("inf")])
def test_a_callers_own_weights_are_bounded_too(root: Path, weight: float) -> None:
    with pytest.raises(UsageError, match=r"0 or from 1e-06 to 1e\+06"):
        choose_policy(load(root), Policy("p", "soft", (Step("fma", {"fma": weight}),)))


def test_a_file_that_is_not_listed_is_refused_everywhere(root: Path) -> None:
    (root / "heads" / "extra.bin").write_bytes(b"x")
    (root / ".hidden").write_bytes(b"x")
    (root / "more").mkdir()
    (root / "more" / "file").write_bytes(b"x")
    named = r"found '\.hidden', 'heads/extra\.bin', 'more/file'; move them out"
    with pytest.raises(BundleError, match=named):
        load(root).verify()
    with pytest.raises(BundleError, match=named):
        Cascade.open(root)
    assert "heads/extra.bin" in diagnose(root).bundle.faults[0]


def test_what_file_managers_leave_behind_is_passed_over(root: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "._bundle.yaml", "heads/._fma.onnx", "photos/.DS_Store"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "empty").mkdir()
    load(root).verify()
    Cascade.open(root).close()


def test_links_that_lead_out_are_refused_and_links_within_are_not(root: Path, tmp_path: Path) -> None:
    head, outside = root / "heads/mert.onnx", tmp_path / "outside.onnx"
    head.rename(outside)
    head.symlink_to(outside)
    with pytest.raises(BundleError, match=r"'heads/mert\.onnx' \(a link that leads out of the bundle\)"):
        load(root).verify()
    head.unlink()
    outside.rename(tmp_path / "b" / "heads" / "real.onnx")
    head.symlink_to("real.onnx")
    files = dict(bundles.read_manifest(root)["files"])
    bundles.edit_manifest(root, files=files | {"heads/real.onnx": files["heads/mert.onnx"]})
    load(root).verify()
    (root / "loop").symlink_to("loop")
    with pytest.raises(BundleError, match="'loop'"):
        load(root).verify()
    (root / "loop").unlink()
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="'folder'"):
        load(root).verify()


def test_a_bundle_reached_through_a_link_is_a_bundle(root: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(root)
    load(tmp_path / "current").verify()


def test_special_files_are_refused_and_never_waited_for(root: Path) -> None:
    (root / "heads/mert.onnx").unlink()
    os.mkfifo(root / "heads/mert.onnx")
    with pytest.raises(BundleError, match=r"mert\.onnx: cannot be read \(not a regular file\)"):
        load(root).verify()
    with pytest.raises(BundleError, match="not a regular file"):
        Cascade.open(root)
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(root)
        try:
            one.bind("s")
        finally:
            os.chdir(here)
        with pytest.raises(BundleError, match="'s'"):
            load(root).verify()


def test_what_was_hashed_is_what_is_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that is exchanged after every check, at the last moment before its file is opened."""
    evil = root.parent / "evil.onnx"
    bundles.write_head(evil, 8, bias=[0.0, 0.0, 50.0])
    opened = OrtBackend.open_graph

    def exchange(self: OrtBackend, file: Any, **options: Any) -> Any:
        if file.path.name == "mert.onnx":
            file.path.write_bytes(evil.read_bytes())
        return opened(self, file, **options)

    monkeypatch.setattr(OrtBackend, "open_graph", exchange)
    with pytest.raises(BundleError, match=r"heads/mert\.onnx: expected"):
        Cascade.open(root)


def test_a_session_is_made_from_the_bytes_that_were_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may be exchanged as soon as it has been read: nothing opens it by name again."""
    bundle, reads = load(root), []
    read = type(bundle.file("heads/mert.onnx")).read

    def then_vanish(self: Any) -> bytes:
        content = read(self)
        self.path.unlink()
        reads.append(self.path.name)
        return content

    monkeypatch.setattr(type(bundle.file("heads/mert.onnx")), "read", then_vanish)
    with Cascade.open(bundle) as cascade:
        assert sorted(reads) == ["fma.onnx", "mert.fp32.onnx", "mert.onnx"]
        assert cascade.classify_samples(np.sin(np.arange(80_000) / 9).astype(np.float32), 16_000).genre


def external(tensor: onnx.TensorProto, location: str = "weights.bin") -> onnx.TensorProto:
    """``tensor`` with its data elsewhere, as onnx.external_data_helper writes it."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def away(name: str = "w") -> onnx.TensorProto:
    return external(numpy_helper.from_array(np.ones((4, 4), np.float32), name))


def model(nodes: list[Any] | None = None, weights: list[Any] | None = None, **fields: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes or [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for field, values in fields.items():
        getattr(made, field).extend(values)
    return made


def sparse(values: onnx.TensorProto, indices: onnx.TensorProto) -> onnx.SparseTensorProto:
    made = onnx.SparseTensorProto(dims=[4])
    made.values.CopyFrom(values)
    made.indices.CopyFrom(indices)
    return made


def attribute(kind: str, value: Any) -> Any:
    """A node with one attribute, set field by field: helper.make_attribute knows too little of odd ones."""
    node = helper.make_node("Constant", [], ["c"])
    made = node.attribute.add(name="value")
    if kind in ("t", "g", "sparse_tensor"):
        getattr(made, kind).CopyFrom(value)
    else:
        getattr(made, kind).append(value)
    return node


def graph_with(node: Any = None, tensor: Any = None) -> onnx.GraphProto:
    return helper.make_graph([node] if node else [], "inner", [], [], [tensor] if tensor else [])


def with_sparse_initialiser(tensor: onnx.SparseTensorProto) -> onnx.ModelProto:
    made = model()
    made.graph.sparse_initializer.append(tensor)
    return made


INSIDE = numpy_helper.from_array(np.array([1.0], np.float32), "v")
INDEX = numpy_helper.from_array(np.array([0], np.int64), "i")
DEEP = attribute("g", graph_with(attribute("g", graph_with(attribute("t", away())))))
FUNCTION = onnx.FunctionProto(name="f", domain="d", node=[attribute("t", away())])
DEFAULT = onnx.FunctionProto(name="f", domain="d", attribute_proto=attribute("t", away()).attribute)
TRAINING = onnx.TrainingInfoProto(initialization=graph_with(tensor=away()))
EXTERNAL = {
    "an initialiser": model(weights=[away()]),
    "the second initialiser": model(weights=[numpy_helper.from_array(np.ones(3, np.float32), "a"), away()]),
    "a sparse initialiser's values": with_sparse_initialiser(sparse(away(), INDEX)),
    "a sparse initialiser's indices": with_sparse_initialiser(sparse(INSIDE, away())),
    "a constant": model([attribute("t", away())]),
    "a list of tensors": model([attribute("tensors", away())]),
    "a sparse constant": model([attribute("sparse_tensor", sparse(away(), INDEX))]),
    "a list of sparse tensors": model([attribute("sparse_tensors", sparse(INSIDE, away()))]),
    "a subgraph's initialiser": model([attribute("g", graph_with(tensor=away()))]),
    "one of several subgraphs": model([attribute("graphs", graph_with(tensor=away()))]),
    "a constant two subgraphs down": model([DEEP]),
    "a function's constant": model(functions=[FUNCTION]),
    "a function's default": model(functions=[DEFAULT]),
    "a training graph": model(training_info=[TRAINING]),
}


@pytest.mark.parametrize("case", EXTERNAL)
def test_data_in_another_file_is_refused_wherever_a_tensor_can_be(case: str, tmp_path: Path) -> None:
    content = EXTERNAL[case].SerializeToString()
    with pytest.raises(EngineError, match="data lies in another file"):
        refuse_external_data(content, "g.onnx")
    file = tmp_path / "g.onnx"
    file.write_bytes(content)
    (tmp_path / "weights.bin").write_bytes(np.ones((4, 4), np.float32).tobytes())
    with pytest.raises(EngineError, match=r"g\.onnx: a tensor's data lies in another file"):
        OrtBackend(1).open_graph(file, input_name="x", output_name="y", width=4, output_width=4, max_batch=1)


def test_a_location_alone_and_an_odd_place_are_refused_too() -> None:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(EngineError, match="data lies in another file"):
        refuse_external_data(model(weights=[tensor]).SerializeToString(), "g.onnx")


def test_models_with_their_weights_inside_are_taken() -> None:
    plain = model(
        [attribute("tensors", INSIDE), attribute("g", graph_with(tensor=INSIDE))],
        [numpy_helper.from_array(np.ones((300, 300), np.float32), "w")],
        metadata_props=[onnx.StringStringEntryProto(key="location", value="weights.bin")],
    )
    refuse_external_data(plain.SerializeToString(), "g.onnx")


def test_a_graph_cut_off_anywhere_is_refused() -> None:
    content = model(weights=[numpy_helper.from_array(np.ones(40, np.float32), "w")]).SerializeToString()
    refuse_external_data(content, "g.onnx")
    for size in range(len(content)):
        try:
            whole = onnx.ModelProto.FromString(content[:size]).HasField("graph")  # cut between two fields
        except DecodeError:
            whole = False
        if not whole:
            with pytest.raises(EngineError, match="no valid ONNX file"):
                refuse_external_data(content[:size], "g.onnx")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"this is no onnx file",
        b"\x00",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x3b\x08\x01\x3c",
        b"\x3f",
        b"\x38\x01",
        b"\x08\x0a\x08\x0aORTM" + bytes(40),
        b"....ORTM" + bytes(40),
        b"\x08\x0a",
    ],
)
def test_what_is_no_onnx_is_refused(content: bytes) -> None:
    with pytest.raises(EngineError, match=r"g\.onnx: no valid ONNX file"):
        refuse_external_data(content, "g.onnx")


def test_graphs_within_graphs_without_end_are_refused() -> None:
    inner = b""
    for _ in range(200):  # graph { node { attribute { g { … } } } }
        for tag in (0x32, 0x2A, 0x0A):
            inner = bytes([tag]) + length(inner) + inner
    content = b"\x3a" + length(inner) + inner
    with pytest.raises(EngineError, match="nested deeper than 100 levels"):
        refuse_external_data(content, "g.onnx")


def length(content: bytes) -> bytes:
    number, made = len(content), bytearray()
    while number >= 0x80:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def test_a_bundle_with_external_data_is_refused_before_anything_runs(root: Path) -> None:
    """As onnx.save_model(…, save_as_external_data=True) leaves it, with its hash in the manifest."""
    head = root / "heads/mert.onnx"
    loaded = onnx.load(head)
    onnx.save_model(loaded, head, save_as_external_data=True, location="mert.weights", size_threshold=0)
    assert (root / "heads/mert.weights").exists()
    (root / "heads/mert.weights").rename(root.parent / "mert.weights")
    bundles.rehash(root)
    with pytest.raises(BundleError, match=r"heads/mert\.onnx: a tensor's data lies in another file"):
        load(root).verify()
    with pytest.raises(EngineError, match=r"heads/mert\.onnx: a tensor's data lies in another file"):
        Cascade.open(root)
    assert "data lies in another file" in diagnose(root).bundle.faults[0]


def test_a_head_that_is_text_is_refused(root: Path) -> None:
    (root / "heads/mert.onnx").write_text("this is no onnx file")
    bundles.rehash(root)
    with pytest.raises(BundleError, match="no valid ONNX file"):
        load(root).verify()
    with pytest.raises(EngineError, match="no valid ONNX file"):
        Cascade.open(root)


def test_the_bytes_of_a_model_are_not_kept(root: Path) -> None:
    graph = OrtBackend(1).open_graph(
        PlainFile(root / "encoders/mert.fp32.onnx"),
        input_name="waveform",
        output_name="embedding",
        width=16_000,
        output_width=8,
        max_batch=1,
    )
    assert getattr(graph._session, "_model_bytes", None) is None
    graph.close()


def arrays_of_a_reference() -> dict[str, Any]:
    with np.load(io.BytesIO(ReferenceVectors(16_000, 800, 5, np.ones((8, 3), np.float32)).to_bytes())) as file:
        return {name: file[name] for name in file.files}


ARRAYS: dict[str, dict[str, Any]] = {
    "a negative seed": {"seed": np.int64(-1)},
    "a seed that is infinite": {"seed": np.float64("inf")},
    "a seed that is no number": {"seed": np.float64("nan")},
    "several seeds": {"seed": np.arange(3)},
    "a rate of 1": {"rate": np.int64(1)},
    "a rate beyond all": {"rate": np.int64(10**9)},
    "ten trillion samples": {"samples": np.int64(10**13)},
    "no samples": {"samples": np.int64(0)},
    "an object": {"seed": np.array([{}], object)},
    "a missing seed": {"seed": None},
}


@pytest.mark.parametrize("case", ARRAYS)
def test_reference_vectors_that_cannot_be_meant_are_refused(case: str, tmp_path: Path) -> None:
    changed = {name: value for name, value in (arrays_of_a_reference() | ARRAYS[case]).items() if value is not None}
    np.savez(tmp_path / "r.npz", allow_pickle=True, **changed)
    with pytest.raises(BundleError, match=r"r\.npz"):
        load_reference(tmp_path / "r.npz")


def test_reference_vectors_that_claim_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(header, shape)
    file = tmp_path / "r.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embedding.npy", header.getvalue() + bytes(16))
    with pytest.raises(BundleError, match=r"shape \(1000000, 1000000\) in \d+ bytes"):
        load_reference(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"bomb{i}.npy", bytes(100 << 20))
    assert file.stat().st_size < 1 << 20
    with pytest.raises(BundleError, match="expected at most 268435456 bytes unpacked, got 314572800"):
        load_reference(file)
