"""What `lint-imports` has no contract for: cycles between modules, and third-party imports that nothing declares."""

from __future__ import annotations

import re
import sys

import grimp
import pytest
from environments import project

PACKAGES = ("perceiver_runtime", "perceiver_exporters", "perceiver_deploy")
PROVIDES = {
    "cuda": "cuda-bindings",
    "pynvml": "nvidia-ml-py",
    "tensorrt_rtx": "tensorrt-rtx-cu13-bindings",
    "google": "protobuf",
    "png": "pypng",
}
"""Import names that are not their distribution's name."""
UNDECLARED = {
    "tensorrt": "on a device it is JetPack's",
    "tensorrt_lean": "what plays engines where `tensorrt` is not installed",
    "tensorrt_dispatch": "what plays engines where `tensorrt` is not installed",
    "tensorrt_rtx": "an extra of perceiver-deploy",
    "modelopt": "needs an environment of its own",
    "PIL": "draws the sample of emoji, which happens in a checkout",
    "openvino_telemetry": "imported to switch it off",
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


def test_no_module_imports_itself_through_others(graph: grimp.ImportGraph) -> None:
    """Imports inside of functions count too."""
    left = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while free := [module for module, imported in left.items() if not imported & left.keys()]:
        for module in free:
            del left[module]
    assert not left, "modules of cycles, and those that import them"


@pytest.mark.parametrize(
    ("folder", "packages"), [("runtime", PACKAGES[:1]), (".", PACKAGES)], ids=["perceiver-runtime", "perceiver-deploy"]
)
def test_third_party_imports_are_declared(graph: grimp.ImportGraph, folder: str, packages: tuple[str, ...]) -> None:
    table = project(folder)
    extras = [each for extra, packages in table["optional-dependencies"].items() if extra != "dev" for each in packages]
    declared = {re.split(r"[>=]=", each)[0].replace("_", "-") for each in (*table["dependencies"], *extras)}
    imported = {
        module: importer
        for module in graph.modules
        if graph.is_module_squashed(module) and module not in sys.stdlib_module_names
        for importer in graph.find_modules_that_directly_import(module)
        if importer.split(".")[0] in packages
    }
    assert {"numpy"} <= imported.keys()
    names = {module: PROVIDES.get(module, module).replace("_", "-") for module in imported}
    missing = {m: imported[m] for m, name in names.items() if name not in declared and m not in UNDECLARED}
    assert not missing
