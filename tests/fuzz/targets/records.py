"""Records beside bundles: reports of boards, measurements, histories, replays, telemetry, options."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

from fuzz.targets.bundles import tiny
from fuzz.targets.reading import OfBytes, OfJson, Once, Prepare, example
from mutations import mutated

from perceiver_runtime.format.ranges import parse_ranges
from perceiver_runtime.telemetry.tegrastats import parse_line

LINE = (
    "RAM 3162/7620MB (lfb 4x4MB) SWAP 0/3810MB CPU [12%@1510,0%@1510,off] EMC_FREQ 3%@2133 GR3D_FREQ 10%@[1300,1300] "
    "CV0@-256C cpu@48.5C tj@50C VDD_IN 5139mW/5139mW VDD_GPU_SOC 1439mW/1439mW/1500mW"
)
ODD = ("9" * 5000, "9" * 400, ",", "", "\u0663", "-", "@", "x", "\0")
PARTS = ("batch", "=", ":", "1", "4", "16", "-", "\u0663", " ", "9" * 400, "x", ",", "\0")


def tegrastats(folder: Path) -> Once:
    def once(chance: random.Random) -> None:
        line = list(LINE)
        for _ in range(chance.randrange(1, 6)):
            line[chance.randrange(len(line))] = chance.choice(ODD)
        parse_line("".join(line), 0.0)

    return once


def ranges(folder: Path) -> Once:
    return lambda chance: parse_ranges(["".join(chance.choice(PARTS) for _ in range(chance.randrange(8)))])


def replays(folder: Path) -> Once:
    from perceiver_exporters.diagnose.bisection.replay import RECORD, Replay, read_replay

    simple = {str: "x", int: 1, bool: True, float: 1.0}

    def read(record: Any) -> None:
        (folder / RECORD).write_text(json.dumps(record))
        read_replay(folder)

    whole = {name: simple.get(kind, {}) for name, kind in get_type_hints(Replay).items()}
    return lambda chance: read(mutated(whole, chance))


def _report(folder: Path) -> tuple[Path, dict[str, bytes]]:
    """A self-test of the tiny bundle, made here, and its files but for the index."""
    from perceiver_runtime.cli.main import main
    from perceiver_runtime.selftest.archive import INDEX

    path = folder / "report.zip"
    code = main(["selftest", str(tiny(folder)), "-o", str(path), "--iterations", "8", "--warmup", "0", "--quiet"])
    assert code == 0
    with zipfile.ZipFile(path) as archive:
        return path, {name: archive.read(name) for name in archive.namelist() if name != INDEX}


def report(folder: Path) -> Once:
    """One file of the report with one damaged place, under right hashes."""
    from perceiver_deploy.boards.compare import board_of
    from perceiver_deploy.boards.plausible import check_bundle, check_plausible
    from perceiver_runtime import load_bundle
    from perceiver_runtime.selftest.archive import INDEX, _index, _sha256, read_report

    path, contents = _report(folder)
    records = {name: json.loads(content) for name, content in contents.items()}
    bundle = load_bundle(folder / "bundle")

    def once(chance: random.Random) -> None:
        name = chance.choice(sorted(records))
        doctored = {**contents, name: json.dumps(mutated(records[name], chance)).encode()}
        index = _index({name: _sha256(content) for name, content in doctored.items()}, "0.1.0")
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in {INDEX: json.dumps(index.__dict__).encode(), **doctored}.items():
                archive.writestr(member, content)
        made, _ = read_report(path)
        check_plausible(made)
        check_bundle(made, bundle)
        board_of(made)

    return once


def report_bytes(folder: Path) -> Once:
    from perceiver_runtime.selftest.archive import read_report

    path, _ = _report(folder)
    whole, stored = path.read_bytes(), io.BytesIO()
    with zipfile.ZipFile(path) as packed, zipfile.ZipFile(stored, "w") as archive:
        for name in packed.namelist():
            archive.writestr(name, packed.read(name))

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_report(path)

    return OfBytes((whole, stored.getvalue()), read)


def results(folder: Path) -> Once:
    """The file of imported reports."""
    from perceiver_deploy.boards.results import BoardResult, read_results, rows

    return _lines(folder, BoardResult, lambda path: rows(read_results(path)))


def history(folder: Path) -> Once:
    """The file of `bench --compare`, compared with a result of now."""
    from perceiver_deploy.api.bench import BenchmarkReport
    from perceiver_deploy.api.history import changes, read
    from perceiver_runtime.format import schema

    now = schema.decode(BenchmarkReport, example(BenchmarkReport))
    return _lines(folder, BenchmarkReport, lambda path: changes([now], read(path)))


def _lines(folder: Path, kind: Any, use: Callable[[Path], object]) -> Once:
    path, whole = folder / "lines", example(kind)

    def read(record: Any) -> None:
        path.write_text(f"{json.dumps(whole)}\n{json.dumps(record)}\n")
        use(path)

    return OfJson(whole, read)


TIMES = [{"startEnqMs": 0.0, "endEnqMs": 0.1, "computeMs": 1.0, "latencyMs": 1.2}] * 3
PROFILE = [{"count": 3}, {"name": "a", "averageMs": 0.5, "medianMs": 0.4}, {"name": "b", "averageMs": 0.5}]
LAYERS = {"Layers": ["a", {"Name": "b", "LayerType": "Gemm", "TacticName": "t"}], "Bindings": ["x"]}
MEASURED = {"times": TIMES, "profile": PROFILE, "graph": LAYERS}


def trtexec(folder: Path) -> Once:
    """Files of trtexec and of `perceiver-run layers`."""
    from perceiver_exporters.trtexec.results import read_trtexec

    def read(record: Any) -> None:
        for name, content in (record if isinstance(record, dict) else {"times": record}).items():
            if name in MEASURED:
                (folder / f"head.{name}.json").write_text(json.dumps(content))
        read_trtexec(folder, folder)

    return OfJson(MEASURED, read)


def record(module: str, reader: str, kind: str) -> Prepare:
    """A list of records that a function reads from a file."""

    def prepare(folder: Path) -> Once:
        from importlib import import_module

        found = import_module(module)
        path, whole = folder / "x.json", example(getattr(found, kind))

        def read(content: Any) -> None:
            path.write_text(json.dumps(content))
            getattr(found, reader)(path)

        return OfJson([whole, whole] if reader == "load_record" else whole, read)

    return prepare
