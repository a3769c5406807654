"""Every attribute, enum member and keyword that our code uses exists in the real API of each TensorRT version."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from engines.contract.install import ROOT, VERSIONS
from engines.contract.surface import Surface, rtx_surface, surface
from engines.contract.usage import Use, missing, uses

from perceiver_runtime.tensorrt.dialect import dialect_of

SOURCES = sorted((ROOT / "runtime" / "perceiver_runtime" / "tensorrt").rglob("*.py"))
APIS = [*VERSIONS, "rtx"]


def api(name: str) -> Surface:
    return rtx_surface() if name == "rtx" else surface(name)


@pytest.fixture(scope="module")
def used() -> list[Use]:
    return uses(SOURCES, [api(name) for name in APIS])


@pytest.mark.parametrize("name", APIS)
def test_every_use_exists(name: str, used: list[Use]) -> None:
    real = api(name)
    rules = dialect_of(real.module, real.version)
    asked = [use for use in used if all(getattr(rules, flag) for flag in use.flags)]
    assert len(asked) > 40
    assert [problem for use in asked if (problem := missing(use, real))] == []


def test_the_extraction_sees_calls_enums_and_keywords(used: list[Use]) -> None:
    seen = {(use.owner, use.attribute) for use in used}
    assert {
        ("", "Builder"),
        ("Builder", "create_network"),
        ("INetworkDefinition", "get_layer"),
        ("IProgressMonitor", "step_complete"),
        ("BuilderFlag", "TF32"),
        ("IAttention", "decomposable"),
        ("IOptimizationProfile", "set_shape"),
        ("ITimingCache", "serialize"),
        ("ParserError", "node_operator"),
        ("EngineInspector", "get_engine_information"),
    } <= seen
    assert any("ignore_mismatch" in use.keywords for use in used if use.attribute == "set_timing_cache")


def test_conditions_are_understood(used: list[Use]) -> None:
    flags = {(use.owner, use.attribute): use.flags for use in used}
    assert flags["IBuilderConfig", "set_compute_capability"] == {"capability_targets"}
    assert flags["IAttention", "decomposable"] == {"attention"}
    assert flags["IBuilderConfig", "set_memory_pool_limit"] == frozenset()


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def f(trt, builder: Builder):\n    builder.build_cuda_engine()", "no Builder.build_cuda_engine"),
        ("def f(trt):\n    return trt.BuilderFlag.FP16", "no BuilderFlag.FP16"),
        ("def f(trt):\n    return trt.nothing_of_this_name()", "no tensorrt.nothing_of_this_name"),
        (
            "def f(trt):\n    b = trt.Builder(x)\n    n = b.create_network()\n    n.add_dft(1)",
            "no INetworkDefinition.add_dft",
        ),
        ("def f(trt, c: IBuilderConfig):\n    c.set_flag(flags=1)", "IBuilderConfig.set_flag takes no flags"),
        ("def f(trt, e: ICudaEngine):\n    return e.device_memory_size", "no ICudaEngine.device_memory_size"),
        (
            "class M(trt.IProgressMonitor):\n    def phase_started(self, phase): ...",
            "no IProgressMonitor.phase_started",
        ),
    ],
)
def test_a_wrong_use_is_caught(source: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(source)
    real = surface("11.4.0.106")
    assert any(problem in (missing(use, real) or "") for use in uses([path], [real]))


def test_nothing_else_speaks_to_tensorrt() -> None:
    """So that the files above are all there is to hold against its API."""
    folders = ("runtime/perceiver_runtime", "exporters/perceiver_exporters", "perceiver_deploy")
    others = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path not in SOURCES]
    assert len(others) > 100
    for path in others:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [name for name in names if name.split(".")[0].startswith("tensorrt")], path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trt":
                assert node.attr.startswith("__"), f"{path}:{node.lineno}"


def test_no_version_is_compared_outside_of_the_table() -> None:
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        compares = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Compare)]
        if path.name not in ("dialect.py", "sidecar.py", "kit.py"):
            assert not [text for text in compares if "__version__" in text or "version_of" in text], path


def test_host_code_in_engines_stays_disallowed() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets = node.targets if isinstance(node, ast.Assign) else []
            assert not any(ast.unparse(target).endswith("engine_host_code_allowed") for target in targets)
            if isinstance(node, ast.Call):
                assert "engine_host_code_allowed" not in ast.unparse(node)
