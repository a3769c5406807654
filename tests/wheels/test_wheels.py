"""Two wheels of one version that share no file: each installs, works and goes without the other's files."""

from __future__ import annotations

import json
import re
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from environments import ROOT, Environment

import perceiver_runtime

NOT_SHIPPED = ("examples/zoo_training/", "/__main__.py", "tests/", "benchmarks/")
DEPLOY_LIMIT_BYTES = 6_200_000
"""Of which 3.7 MB are the three shipped models and 1.7 MB the data that calibrates and scores them."""


def _names(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def _metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_one_version(wheels: dict[str, Path]) -> None:
    version = perceiver_runtime.__version__
    assert {_metadata(wheel)["Version"] for wheel in wheels.values()} == {version}
    required = _metadata(wheels["perceiver-deploy"]).get_all("Requires-Dist") or []
    assert f"perceiver-runtime=={version}" in required
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_no_file_is_in_both(wheels: dict[str, Path]) -> None:
    deploy, runtime = _names(wheels["perceiver-deploy"]), _names(wheels["perceiver-runtime"])
    assert not deploy & runtime
    assert {name.split("/")[0] for name in runtime if "dist-info" not in name} == {"perceiver_runtime"}
    assert {name.split("/")[0] for name in deploy if "dist-info" not in name} == {
        "perceiver_deploy",
        "perceiver_exporters",
    }


def test_no_training_and_no_tests(wheels: dict[str, Path]) -> None:
    wheel = wheels["perceiver-deploy"]
    assert not [name for name in _names(wheel) for other in NOT_SHIPPED if other in name]
    assert wheel.stat().st_size < DEPLOY_LIMIT_BYTES


@pytest.mark.parametrize("name", ["perceiver-deploy", "perceiver-runtime"])
def test_each_has_its_licence_and_its_types(wheels: dict[str, Path], name: str) -> None:
    text = (ROOT / "LICENSE").read_bytes()
    with ZipFile(wheels[name]) as archive:
        (licence,) = (each for each in archive.namelist() if each.endswith("licenses/LICENSE"))
        assert archive.read(licence) == text
        packages = {each.split("/")[0] for each in archive.namelist() if each.startswith("perceiver_")}
        assert {f"{p}/py.typed" for p in packages if ".dist-info" not in p} <= set(archive.namelist())


def test_each_program_is_declared_once(wheels: dict[str, Path]) -> None:
    declared = {}
    for name, wheel in wheels.items():
        with ZipFile(wheel) as archive:
            (entry,) = (each for each in archive.namelist() if each.endswith("entry_points.txt"))
            declared[name] = re.findall(r"^(\S+) = ", archive.read(entry).decode(), flags=re.MULTILINE)
    assert declared == {"perceiver-deploy": ["perceiver-export"], "perceiver-runtime": ["perceiver-run"]}


def test_together_and_apart(wheels: dict[str, Path], environment: Environment) -> None:
    """Without the runtime, perceiver-deploy is refused; either is removed without a trace in the other."""
    deploy, runtime = wheels["perceiver-deploy"], wheels["perceiver-runtime"]
    environment.pip("install", runtime)
    alone = environment.installed()
    version = perceiver_runtime.__version__
    assert environment.run("perceiver-run", "--version").strip().endswith(version)
    environment.pip("install", deploy)
    both = environment.installed()
    assert json.loads(environment.run("perceiver-export", "models", "--json"))
    environment.pip("install", "perceiver-deploy[cpu]", "perceiver-runtime[cpu]")
    environment.pip("uninstall", "perceiver-runtime")
    assert environment.installed() == both - alone
    environment.pip("install", runtime)
    assert environment.installed() == both
    environment.pip("uninstall", "perceiver-deploy")
    assert environment.installed() == alone
    assert environment.run("perceiver-run", "--version").strip().endswith(version)


def test_from_a_checkout(environment: Environment, tmp_path: Path) -> None:
    """The commands of the README: both packages from their folders, then an export."""
    environment.pip("install", ROOT / "runtime", f"{ROOT}[cpu]")
    environment.run("perceiver-export", "export", "fashion-perceiver", "-o", tmp_path / "x")
    environment.run("perceiver-run", "verify", tmp_path / "x")
