"""From PyTorch to a session: components, generation, heads, missing inputs, a trunk that two bundles share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from factories.hybrid import BOTH, PERCEIVER, TEXT, build, ids, pixels

from perceiver_deploy.api.evaluate import evaluate_sessions
from perceiver_deploy.datasets import ArraySamples, Scored
from perceiver_deploy.datasets.dataset import shipped
from perceiver_deploy.families.hybrid import cut
from perceiver_deploy.models.hybrid import ClassifierConfig, Hybrid, HybridConfig, TextConfig
from perceiver_deploy.models.hybrid.config import Cell
from perceiver_deploy.models.hybrid.decoder import greedy
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime import Sampling, Session, open_session, verify
from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.format.schema import encode
from perceiver_runtime.manifest import Source
from perceiver_runtime.tensors import Array

Feeds = dict[str, Array]


def feeds(batch: int = 8) -> Feeds:
    """Pictures and texts; the second picture and the third text are missing."""
    images, texts = pixels(batch), ids([5, 1, 2, 9, 24, 3, 7, 11][:batch], width=TEXT.length)
    images[1], texts[2] = -1.0, 0
    return {"pixel_values": images.numpy(), "input_ids": texts.numpy()}


def speaking_model() -> Hybrid:
    """A model whose sequences end at different places."""
    model = build(BOTH)
    decoder = model.generator("name")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 2:  # convolutions so loud that sequences depend on the pictures
                parameter.mul_(parameter[0, ..., 0].numel() ** 0.5)
        for weight in (decoder.embedding.weight, decoder.output.weight, decoder.initial.weight):
            weight.mul_(6.0)
    return model


def export(model: Hybrid, golden: Feeds, path: Path) -> Path:
    source = Source("hybrid", "hybrid", weights_sha256(model), encode(model.config), False)
    export_bundle(Blueprint(source, cut(model), (golden,)), path)
    return path


@pytest.fixture(scope="module")
def model() -> Hybrid:
    return speaking_model()


@pytest.fixture(scope="module")
def session(model: Hybrid, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    path = export(model, feeds(3), tmp_path_factory.mktemp("hybrid") / "fp32")
    with open_session(path, threads=1) as opened:
        yield opened


def test_every_component_and_the_pipeline_hold_parity(session: Session) -> None:
    report = verify(session)
    assert report.passed
    assert {r.component for r in report.reports} >= {c.name for c in session.manifest.components}


def test_every_head_equals_pytorch(session: Session, model: Hybrid) -> None:
    given = feeds()
    got = session.run(given, outputs=("kind", "score"))
    with torch.no_grad():
        expected = model(*map(torch.from_numpy, given.values()))
    for name in ("kind", "score"):
        want = expected[name].numpy()
        assert np.linalg.norm(got[name] - want) / np.linalg.norm(want) < 1e-5


def test_greedy_generation_equals_pytorch_token_for_token(session: Session, model: Hybrid) -> None:
    given = feeds()
    with torch.no_grad():
        expected = greedy(model.generator("name"), model.trunk(*map(torch.from_numpy, given.values()))).numpy()
    made = session.generate(given)
    assert len(set(made.lengths.tolist())) > 2
    np.testing.assert_array_equal(made.ids, expected)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.7, top_k=5, seed=0)])
def test_batched_generation_equals_one_by_one(session: Session, sampling: Sampling) -> None:
    given = feeds()
    together = session.generate(given, sampling=sampling)
    rows = range(8) if sampling.temperature == 0.0 else range(1)
    for row in rows:
        alone = session.generate({n: a[row : row + 1] for n, a in given.items()}, sampling=sampling)
        length = int(alone.lengths[0])
        assert together.lengths[row] == length
        np.testing.assert_array_equal(together.ids[row, :length], alone.ids[0, :length])


def test_generation_starts_with_what_run_gives(session: Session) -> None:
    given = feeds()
    made, scores = session.generate(given, length=1), session.run(given, outputs=("name_log_probs",))["name_log_probs"]
    np.testing.assert_array_equal(made.ids[:, 0], scores.argmax(axis=1))
    np.testing.assert_array_equal(made.log_probs[:, 0], scores.max(axis=1))
    for length in (13, 0, 1.5, True):
        with pytest.raises(UsageError, match="1 to 12"):
            session.generate(given, length=length)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="can generate: name"):
        session.generate(given, "poem")


def test_ids_outside_of_their_vocabularies_are_refused(session: Session) -> None:
    given = feeds()
    with pytest.raises(FeedError, match=r"name_token: expected 0 to 29, got 30 at \[0\]"):
        session.run({**given, "name_token": np.full(8, 30)})
    for call in (session.run, session.generate):
        with pytest.raises(FeedError, match=r"input_ids: expected 0 to 39, got -1 at \[0, 0\]"):
            call({**given, "input_ids": np.full_like(given["input_ids"], -1)})


def test_classifier_and_regressor_are_evaluated_on_samples_of_their_own(session: Session, model: Hybrid) -> None:
    given, nameless = feeds(), {**feeds(), "input_ids": np.zeros((8, 24), np.int64)}
    with torch.no_grad():
        kind = model(*map(torch.from_numpy, nameless.values()))["kind"].numpy().argmax(axis=1)
        score = model(*map(torch.from_numpy, given.values()))["score"].numpy()
    zero = np.arange(8)[:, None] < [2, 0]
    targets = np.where(zero, 0.0, score + 0.5)  # zero targets count for the absolute error alone
    more = (Scored("score", "regression", ArraySamples(given, {"score": targets})),)
    data = shipped("made up", tuple("abcde"), {}, nameless, kind, "kind", more)
    (reports,) = evaluate_sessions([session], data, cut(model), batch=3)
    assert [report.output for report in reports] == ["kind", "score"]
    assert reports[0].reference.accuracy == reports[0].deployed.accuracy == reports[0].agreement == 1.0
    assert reports[1].agreement is None
    assert reports[1].reference.zero_targets == 2
    expected = np.where(zero, np.abs(score), 0.5).mean()
    assert reports[1].deployed.mae == pytest.approx(expected, rel=1e-4)
    assert reports[1].difference == pytest.approx({"mae": 0.0, "mape": 0.0}, abs=1e-4)


@pytest.mark.parametrize("missing", ["pixel_values", "input_ids"])
def test_a_missing_modality_may_be_left_out(session: Session, model: Hybrid, missing: str) -> None:
    given = feeds()
    del given[missing]
    got = session.run(given, outputs=("kind",))["kind"]
    fill = {"pixel_values": np.full((8, 3, 16, 16), -1, np.float32), "input_ids": np.zeros((8, 24), np.int64)}
    filled = {name: given.get(name, fill[name]) for name in fill}
    with torch.no_grad():
        expected = model(*map(torch.from_numpy, filled.values()))["kind"].numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_the_trunk_runs_once_for_all_heads_and_no_other_head_runs(session: Session) -> None:
    runs: list[str] = []
    session.run(feeds(), outputs=("kind", "score"), record=lambda component, seconds: runs.append(component))
    assert sorted(runs) == sorted(
        ["image_encoder", "text_encoder", "encoder", "processor_block", "processor_block", "kind_head", "score_head"]
    )


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_recurrent_layers_are_single_nodes_of_any_length(cell: Cell, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    config = TextConfig(40, 24, embedding=6, hidden=7, layers=2, cell=cell)
    model = build(HybridConfig(20, 12, PERCEIVER, text=config, classifiers=(ClassifierConfig("kind", 3),)))
    made = cut(model)
    graph = ir.to_proto(trace(made.component("text_encoder"), made.profile))
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count(cell.upper()) == 4
    assert not {"Loop", "Scan", "SequenceEmpty", "DFT"} & set(kinds)
    loaded = ort.InferenceSession(graph.SerializeToString())
    for text in (ids([3, 11, 1]), ids([24])):
        got, mask = loaded.run(None, {"input_ids": text.numpy()})
        with torch.no_grad():
            expected, kept = model.trunk.text(text)
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(mask, kept.numpy())


def test_fine_tuning_a_head_leaves_the_trunks_files_bit_identical(tmp_path: Path) -> None:
    text = TextConfig(40, 24, embedding=6, hidden=7)
    model = build(HybridConfig(20, 12, PERCEIVER, text=text, classifiers=(ClassifierConfig("kind", 3),)))
    golden = {"input_ids": ids([5, 9]).numpy()}
    before = export(model, golden, tmp_path / "before")
    with torch.no_grad():
        model.heads["kind"].output.weight.add_(0.1)
    after = export(model, golden, tmp_path / "after")
    changed = {p.name for p in (before / "onnx").iterdir() if _hash(p) != _hash(after / "onnx" / p.name)}
    assert changed == {"kind_head.onnx"}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
