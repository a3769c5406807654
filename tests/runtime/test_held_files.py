"""What a session runs is what was hashed: files may be replaced, deleted or changed under it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_bundles
from tiny_bundles import Arrays, Model, rehash

from perceiver_runtime import BundleError, Session, UsageError, load_bundle, open_session, verify
from perceiver_runtime.backends import onnxruntime as onnxruntime_backend
from perceiver_runtime.cli.main import main
from perceiver_runtime.format import external_data
from perceiver_runtime.format.external_data import External, inlined, linked, relocate
from perceiver_runtime.format.staging import staged
from perceiver_runtime.golden import load_golden

BACKENDS = ("onnxruntime", "onnxruntime-quick", "openvino")
WEIGHTS = "onnx/shared.weights"
PAGE = 4096


def _externalize(directory: Path) -> Path:
    """Move the weights of the bundle into one file, each on a page of its own, as an export stores large ones."""
    with (directory / WEIGHTS).open("wb") as file:
        for path in sorted((directory / "onnx").glob("*.onnx")):
            graph = onnx.load(path)
            for tensor in graph.graph.initializer:
                if tensor.data_type != onnx.TensorProto.FLOAT:
                    continue  # ONNX Runtime infers shapes from these, and reads no file for it
                file.seek(-(-file.tell() // PAGE) * PAGE)
                place = {"location": "shared.weights", "offset": file.tell(), "length": len(tensor.raw_data)}
                file.write(tensor.raw_data)
                tensor.ClearField("raw_data")
                tensor.data_location = onnx.TensorProto.EXTERNAL
                for key, value in place.items():
                    tensor.external_data.add(key=key, value=str(value))
            path.write_bytes(graph.SerializeToString())
    for path in (*(directory / "onnx").glob("*.onnx"), directory / WEIGHTS):
        rehash(directory, path.relative_to(directory).as_posix())
    return directory


@pytest.fixture(scope="module")
def external(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Path:
    place = tmp_path_factory.mktemp("external") / "tiny"
    return _externalize(tiny_bundles.write(place, model, tiny_bundles.feeds()))


@pytest.fixture
def mapped(external: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(external, tmp_path / "mapped"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same sizes."""
    place = tmp_path_factory.mktemp("other") / "tiny"
    return _externalize(tiny_bundles.write(place, tiny_bundles.full_model(seed=7), tiny_bundles.feeds()))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param.split("-")[0])
    return str(request.param)


@pytest.fixture(params=[external_data.MIN_MAPPED, 0], ids=["small", "large"])
def sized(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As small files are treated, and as large ones."""
    monkeypatch.setattr(external_data, "MIN_MAPPED", request.param)


def _finish(session: Session) -> None:
    """Wait for what `onnxruntime-quick` does in the background."""
    for graph in session._executables.values():
        later = getattr(graph, "_later", None)
        if later is not None:
            later.result()


def _check(session: Session, model: Model) -> None:
    feeds = tiny_bundles.feeds(2)
    for name, array in session.run(feeds).items():
        np.testing.assert_allclose(array, tiny_bundles.reference(model, feeds)[name], rtol=1e-4, atol=1e-5)


def _replace(directory: Path, other: Path) -> None:
    for path in other.rglob("*"):
        if path.is_file():
            shutil.copyfile(path, temporary := directory / ".new")
            temporary.replace(directory / path.relative_to(other))


def _exchange(directory: Path, other: Path) -> None:
    with staged(directory, overwrite=True) as partial:
        shutil.copytree(other, partial, dirs_exist_ok=True)


MISHAPS: dict[str, Callable[[Path, Path], object]] = {
    "deleted": lambda directory, _: shutil.rmtree(directory),
    "renamed": lambda directory, _: directory.rename(directory.with_name("elsewhere")),
    "files replaced": _replace,
    "overwritten": _exchange,
}


@pytest.mark.usefixtures("sized")
def test_external_weights_on_every_backend(external: Path, backend: str, model: Model) -> None:
    with open_session(external, backend, threads=1) as session:
        _check(session, model)
        _finish(session)
        _check(session, model)
        assert verify(session).passed


def test_openvino_that_reads_no_addresses_gets_copies(
    external: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As versions before 2025.4."""
    module = pytest.importorskip("perceiver_runtime.backends.openvino")
    monkeypatch.setattr(module, "READS_ADDRESSES", False)
    monkeypatch.delattr(module, "addressed")
    with open_session(external, "openvino", threads=1) as session:
        _check(session, model)


@pytest.mark.usefixtures("large")
def test_large_weights_are_mapped(external: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ONNX Runtime itself, not copied: also where the bundle's own descriptors are closed."""
    monkeypatch.delattr(onnxruntime_backend, "external_files")
    monkeypatch.delattr(onnxruntime_backend, "inlined")
    with open_session(external, "onnxruntime-quick", threads=1) as session:
        _finish(session)
        assert str(external / WEIGHTS) in Path("/proc/self/maps").read_text(encoding="utf-8")
        assert [file.path for file in session.bundle.mapped] == [external / WEIGHTS]


@pytest.mark.usefixtures("sized")
@pytest.mark.parametrize("mishap", MISHAPS)
def test_a_loaded_bundle_stays_what_it_was(mapped: Path, other: Path, backend: str, model: Model, mishap: str) -> None:
    """From the moment that its files were hashed: before a backend reads them."""
    with load_bundle(mapped) as bundle:
        MISHAPS[mishap](mapped, other)
        with open_session(bundle, backend, threads=1) as session:
            _check(session, model)
            _finish(session)
            _check(session, model)
            assert verify(session).passed


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("mishap", MISHAPS)
def test_an_open_session_stays_what_it_was(mapped: Path, other: Path, model: Model, mishap: str) -> None:
    with open_session(mapped, "onnxruntime-quick", threads=1) as session:
        MISHAPS[mishap](mapped, other)
        _finish(session)
        _check(session, model)
        assert verify(session).passed


@pytest.mark.usefixtures("sized")
def test_no_session_is_a_mixture(mapped: Path, other: Path, model: Model) -> None:
    """While another process exports over the bundle again and again."""
    pair = (Path(shutil.copytree(mapped, mapped.with_name("first"))), other)
    models, stop = (model, tiny_bundles.full_model(seed=7)), threading.Event()

    def write() -> None:
        while not stop.is_set():
            for each in pair:
                _exchange(mapped, each)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        feeds = tiny_bundles.feeds()
        expected = [tiny_bundles.reference(each, feeds)["logits"] for each in models]
        for _ in range(20):
            with open_session(mapped, threads=1) as session:
                got = session.run(feeds)["logits"]
                assert verify(session).passed
            assert any(np.allclose(got, each, rtol=1e-4, atol=1e-5) for each in expected)
    finally:
        stop.set()
        writer.join()


def _change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[::7] = bytes(b ^ 0x15 for b in data[::7])
    path.write_bytes(data)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are treated as large ones."""
    monkeypatch.setattr(external_data, "MIN_MAPPED", 0)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("change", [_change, lambda path: os.truncate(path, PAGE)], ids=["written", "truncated"])
@pytest.mark.parametrize("backend", ["onnxruntime", "onnxruntime-quick"])
def test_weights_changed_in_place_are_found_out(mapped: Path, backend: str, change: Callable[[Path], object]) -> None:
    with open_session(mapped, backend, threads=1) as session:
        session.run(tiny_bundles.feeds())
        _finish(session)  # whoever reads pages that a writer has just cut off is killed
        change(mapped / WEIGHTS)
        with pytest.raises(BundleError, match=r"changed in place while it is open.*copy_weights"):
            session.run(tiny_bundles.feeds())


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("change", [_change, lambda path: os.truncate(path, PAGE)], ids=["written", "truncated"])
@pytest.mark.parametrize("method", ["add_external_initializers_from_files_in_memory", "of an older ONNX Runtime"])
def test_copied_weights_outlive_their_file(
    mapped: Path,
    backend: str,
    model: Model,
    change: Callable[[Path], object],
    method: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnxruntime_backend, "FROM_MEMORY", method)
    with open_session(mapped, backend, threads=1, copy_weights=True) as session:
        _finish(session)
        change(mapped / WEIGHTS)
        _check(session, model)


@pytest.mark.usefixtures("sized")
@pytest.mark.parametrize("name", ["onnx/head.onnx", WEIGHTS])
def test_changed_in_place_before_a_backend_reads(mapped: Path, backend: str, name: str) -> None:
    bundle = load_bundle(mapped)
    if name != WEIGHTS:
        bundle.read(name)  # the next time it is not the memory that was hashed
    _change(mapped / name)
    with pytest.raises(BundleError, match=r"expected sha256|changed in place"):
        open_session(bundle, backend, threads=1)


def test_golden_samples_are_what_was_hashed(mapped: Path) -> None:
    bundle = load_bundle(mapped)
    _change(mapped / bundle.manifest.golden[0])
    with pytest.raises(BundleError, match="expected sha256"):
        load_golden(bundle)


def test_copying_from_the_command_line(external: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **tiny_bundles.feeds())  # type: ignore[arg-type]
    run = ["--inputs", str(tmp_path / "in.npz"), "--out", str(tmp_path / "out.npz")]
    for command, more in (("verify", []), ("run", run), ("bench", ["--iterations", "1", "--warmup", "0"])):
        assert main([command, str(external), "--threads", "1", "--copy-weights", *more]) == 0


@pytest.mark.usefixtures("large")
def test_descriptors_are_given_back(external: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    open_session(external, threads=1).close()
    before = count()
    for index in range(200):
        load_bundle(external)
        if index % 5 == 0:
            session = open_session(external, threads=1)
            session.run(tiny_bundles.feeds())
            session.close()
            assert session.manifest.source.name == "tiny"
            with pytest.raises(UsageError, match="closed"):
                session.bundle.read(WEIGHTS)
    assert count() == before


def test_files_that_are_no_files(mapped: Path) -> None:
    (mapped / "onnx/head.onnx").unlink()
    os.mkfifo(mapped / "onnx/head.onnx")
    with pytest.raises(BundleError, match="expected a file"):
        load_bundle(mapped)


@pytest.mark.parametrize("place", ["onnx", "onnx/head.onnx", "manifest.json"])
def test_links_are_refused(mapped: Path, place: str) -> None:
    (mapped / place).rename(mapped.parent / "outside")
    (mapped / place).symlink_to(mapped.parent / "outside")
    with pytest.raises(BundleError, match="a link that leaves the bundle, or may"):
        load_bundle(mapped)


LOCATIONS = ("../shared.weights", "/etc/hostname", "absent.weights", "", "*/_ORT_MEM_ADDR_/*")


@pytest.mark.parametrize("location", LOCATIONS)
def test_weights_that_are_not_listed_beside_the_graph(mapped: Path, backend: str, location: str) -> None:
    _edit(mapped, lambda data: data.update(location=location))
    with pytest.raises(BundleError, match="can't load it: its weights"):
        open_session(mapped, backend, threads=1)


@pytest.mark.parametrize(("key", "value"), [("offset", 1 << 20), ("offset", -1), ("length", 1 << 20), ("length", -1)])
def test_weights_beyond_their_file(mapped: Path, backend: str, key: str, value: int) -> None:
    _edit(mapped, lambda data: data.update({key: str(value)}))
    with pytest.raises(BundleError, match="can't load it"):
        open_session(mapped, backend, threads=1)


def test_external_data_that_is_given_twice(mapped: Path, backend: str) -> None:
    graph = onnx.load(mapped / "onnx/head.onnx", load_external_data=False)
    (tensor, *_) = (tensor for tensor in graph.graph.initializer if tensor.external_data)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="offset", value="8")
    (mapped / "onnx/head.onnx").write_bytes(graph.SerializeToString())
    rehash(mapped, "onnx/head.onnx")
    with pytest.raises(BundleError, match="external data gives 'offset' twice; export again"):
        open_session(mapped, backend, threads=1)


def test_a_file_that_is_placed_elsewhere_is_what_was_opened(mapped: Path, other: Path, tmp_path: Path) -> None:
    """A link of the path alone would be to the file that has replaced it."""
    wanted = (mapped / WEIGHTS).read_bytes()
    with load_bundle(mapped) as bundle:
        bundle.files[WEIGHTS].place(tmp_path / "linked")
        assert (tmp_path / "linked").stat().st_ino == (mapped / WEIGHTS).stat().st_ino
        _replace(mapped, other)
        bundle.files[WEIGHTS].place(tmp_path / "copied")
        with pytest.raises(BundleError, match="absent: not listed in the manifest; export again"):
            bundle.read("absent")
    assert (tmp_path / "copied").read_bytes() == wanted != (mapped / WEIGHTS).read_bytes()


def _edit(directory: Path, edit: Callable[[dict[str, str]], object]) -> None:
    graph = onnx.load(directory / "onnx/head.onnx", load_external_data=False)
    for tensor in graph.graph.initializer:
        if not tensor.external_data:
            continue
        data = {entry.key: entry.value for entry in tensor.external_data}
        edit(data)
        del tensor.external_data[:]
        for key, value in data.items():
            tensor.external_data.add(key=key, value=value)
    (directory / "onnx/head.onnx").write_bytes(graph.SerializeToString())
    rehash(directory, "onnx/head.onnx")


def test_every_tensor_of_a_graph_is_placed() -> None:
    """In attributes, subgraphs, functions and sparse tensors too; everything else stays as it is, to the byte."""
    helper, proto = onnx.helper, onnx.TensorProto

    def tensor(name: str) -> Any:
        made = proto(name=name, data_type=proto.FLOAT, dims=[2], data_location=proto.EXTERNAL)
        made.external_data.add(key="location", value=f"{name}.weights")
        made.external_data.add(key="offset", value="300")
        return made

    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor("in"))], "inner", [], [])
    nodes = [helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)]
    sparse = onnx.SparseTensorProto(values=tensor("values"), indices=tensor("indices"), dims=[2])
    graph = helper.make_graph(nodes, "g", [], [], [tensor("weight"), onnx.numpy_helper.from_array(np.ones(3), "own")])
    graph.sparse_initializer.append(sparse)
    constant = helper.make_node("Constant", [], ["c"], value=tensor("f"))
    function = helper.make_function("f", "F", [], ["c"], [constant], [])
    model = helper.make_model(graph, functions=[function])
    seen: list[External] = []

    def place(data: External) -> External:
        seen.append(data)
        return External("here", 1 << 40, 8)

    placed = onnx.load_from_string(relocate(model.SerializeToString(), place))
    assert sorted(data.location for data in seen) == sorted(
        f"{name}.weights" for name in ("in", "in", "values", "indices", "weight", "f")
    )
    assert {(data.offset, data.length) for data in seen} == {(300, 0)}
    assert {(e.key, e.value) for e in placed.graph.initializer[0].external_data} == {
        ("location", "here"),
        ("offset", str(1 << 40)),
        ("length", "8"),
    }
    same = relocate(model.SerializeToString(), lambda data: External(*data))
    assert onnx.load_from_string(same) == model
    data = onnx.load_from_string(relocate(model.SerializeToString(), lambda _: b"\0" * 8)).graph.initializer[0]
    assert onnx.numpy_helper.to_array(data).tolist() == [0, 0]


@pytest.mark.parametrize("damage", [lambda d: d[:-3], lambda d: d + b"\x0b", lambda d: d + d])
def test_graphs_that_are_none(mapped: Path, backend: str, damage: Callable[[bytes], bytes]) -> None:
    path = mapped / "onnx/head.onnx"
    path.write_bytes(damage(path.read_bytes()))
    rehash(mapped, "onnx/head.onnx")
    with pytest.raises(BundleError, match="can't load it"):
        open_session(mapped, backend, threads=1)


@pytest.mark.usefixtures("large")
def test_graphs_alone(external: Path) -> None:
    """What a backend is given needs no other file, or descriptors that are open."""
    with load_bundle(external) as bundle:
        content = bundle.read("onnx/head.onnx")
        whole: Any = onnx.load_from_string(inlined(bundle, "onnx/head.onnx", content))
        with linked(bundle, "onnx/head.onnx", content) as graph:
            held: Any = onnx.load_from_string(graph)
            (tensor,) = held.graph.initializer
            place: Arrays | dict[str, str] = {entry.key: entry.value for entry in tensor.external_data}
            data = Path("/", str(place["location"])).read_bytes()[int(str(place["offset"])) :]
        assert data[: int(str(place["length"]))] == whole.graph.initializer[0].raw_data
