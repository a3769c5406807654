"""The examples of CONTRIBUTING.md pass lint and types as they stand, and do what they are shown for."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest
import torch
from environments import ROOT
from onnx import helper
from safetensors.torch import save_file

import perceiver_deploy as pd
from perceiver_deploy import checkpoints
from perceiver_exporters.component import Blueprint
from perceiver_exporters.exporter import Exporter
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.rules import Context, rewrite
from perceiver_exporters.rules.attention import attention_form
from perceiver_exporters.targets.target import TARGETS
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime import backends
from perceiver_runtime.errors import UsageError
from perceiver_runtime.manifest import Source
from perceiver_runtime.measure import tolerances
from perceiver_runtime.tensors import Profile, Range, TensorSpec

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python (\w+)\.py\n(.*?)```", PAGE, flags=re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, each as a file."""
    folder = tmp_path_factory.mktemp("contributing")
    for name, text in EXAMPLES.items():
        (folder / f"example_{name}.py").write_text(text, encoding="utf-8")
    return folder


def _load(folder: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", folder / f"example_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _blueprint(folder: Path) -> Blueprint:
    """A small model with random biases: that of the first example."""
    family = _load(folder, "family").SPECTRUM
    config = family.presets["spectrum"]
    torch.manual_seed(0)
    model = family.build(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, 0.1)
    source = Source("spectrum", family.name, weights_sha256(model), dataclasses.asdict(config), pretrained=False)
    golden = (dict(family.sample(config, 2, np.random.default_rng(0))),)
    return Blueprint(source, family.cut(model), golden)


def test_every_extension_has_an_example() -> None:
    assert list(EXAMPLES) == ["family", "rule", "precision", "target", "checkpoint_format", "backend"]


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--config", str(ROOT / "pyproject.toml")),
        ("ruff", "format", "--check", "--config", str(ROOT / "pyproject.toml")),
        ("mypy", "--config-file", str(ROOT / "pyproject.toml")),
    ],
    ids=["lint", "format", "types"],
)
def test_they_pass(folder: Path, command: tuple[str, ...]) -> None:
    files = map(str, sorted(folder.glob("*.py")))
    done = subprocess.run([sys.executable, "-m", *command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_family_is_exported_and_the_backend_verifies_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Exporter(_blueprint(folder), PRECISIONS["fp32"], TARGETS["cpu"]).export(tmp_path / "spectrum")
    assert pd.verify(tmp_path / "spectrum").passed
    _load(folder, "backend")
    monkeypatch.setitem(backends.BACKENDS, "onnx-reference", "example_backend")
    with (
        pd.open_session(tmp_path / "spectrum", "onnx-reference") as reference,
        pd.open_session(tmp_path / "spectrum") as session,
    ):
        feeds = {"spectrum": np.random.default_rng(1).standard_normal((3, 400), dtype=np.float32)}
        np.testing.assert_allclose(reference.run(feeds)["logits"], session.run(feeds)["logits"], rtol=1e-3, atol=1e-4)


def test_the_rule_removes_a_product(folder: Path) -> None:
    made = helper.make_graph(
        [helper.make_node("Mul", ["x", "one"], ["y"], "scale"), helper.make_node("Neg", ["y"], ["z"], "negate")],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 4])],
        [helper.make_tensor_value_info("z", 1, ["n", 4])],
        [helper.make_tensor("one", 1, [], [1.0])],
    )
    model = ir.serde.deserialize_model(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]))
    rule = _load(folder, "rule").UNIT_PRODUCT
    sized = SizedGraph(model, (TensorSpec("x", "float32", ("n", 4)),), Profile("p", {"n": Range(1, 2, 3)}))
    context = Context(TARGETS["cpu"], "fp32")
    rewrite(sized, context, (rule,))
    assert [node.name for node in sized.graph] == ["negate"]
    assert rule.apply(sized, context).reason == "no multiplication by one"


def test_the_precision_is_exported_for_the_target(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example, targets = _load(folder, "precision"), _load(folder, "target")
    precision, target = example.BF16_WEIGHTS, targets.INTEL
    with pytest.raises(UsageError, match="not measured yet"):
        target.require("int8")
    monkeypatch.setitem(attention_form.AS_PRODUCTS, target.name, targets.ATTENTION)
    monkeypatch.setitem(tolerances.MARGINS, precision.name, example.MARGINS)
    monkeypatch.setitem(PRECISIONS, precision.name, precision)
    offered = dataclasses.replace(target, precisions=(*target.precisions, precision.name))
    monkeypatch.setitem(TARGETS, target.name, offered)
    manifest = Exporter(_blueprint(folder), precision, offered).export(tmp_path / "spectrum")
    noise = {t.component: t.rel_l2 for t in manifest.tolerances}
    assert all(2.0**-9 <= each < 0.1 for each in noise.values())
    assert pd.verify(tmp_path / "spectrum").passed


def test_the_format_is_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = _load(folder, "checkpoint_format")
    monkeypatch.setattr(checkpoints, "FORMATS", (*checkpoints.FORMATS, example.ACME))
    config = example.MaskedLanguageModelConfig(50, 24, 32, 32, example.TRUNK)
    state = {f"net.{k}": v.contiguous() for k, v in example.MaskedLanguageModel(config).state_dict().items()}
    save_file({**state, "optimizer.step": torch.zeros(1)}, tmp_path / "model.safetensors")
    record = {"trainer": "acme", "vocabulary": 50, "max_length": 24}
    (tmp_path / "config.json").write_text(json.dumps(record), encoding="utf-8")
    assert checkpoints.load(tmp_path).family == "masked-language-model"
