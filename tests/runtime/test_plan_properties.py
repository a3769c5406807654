"""Execution plans of random small pipelines (repetition, carry, chunks) against a loop over plain NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perceiver_runtime.backends.host import HostMemory
from perceiver_runtime.execution.feeds import check_feeds, check_sizes
from perceiver_runtime.execution.plan import ExecutionPlan
from perceiver_runtime.execution.subpipeline import for_run
from perceiver_runtime.format.wiring import check_wiring
from perceiver_runtime.manifest import SCHEMA_VERSION, ComponentEntry, Manifest, Source
from perceiver_runtime.pipeline import Chunk, Pipeline, Step
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec

PRIME, WIDTH = 1009, 3
Arrays = Mapping[str, Array]


def spec(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "int64", shape)


STATE, STATE_OUT = spec("state", "b", WIDTH), spec("state_out", "b", WIDTH)
ROWS, ROWS_OUT = spec("rows", "b", "n", WIDTH), spec("rows_out", "b", "n", WIDTH)


@dataclass(frozen=True)
class Function:
    """A component as a function of NumPy arrays, exact in integers: also the executable of a backend."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    call: Callable[..., dict[str, Array]]

    def bind(self, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
        def run() -> None:
            made = self.call(**inputs)
            for name, target in outputs.items():
                np.copyto(target, made[name])

        return run

    @property
    def entry(self) -> ComponentEntry:
        return ComponentEntry(self.name, f"{self.name}.onnx", self.inputs, self.outputs, "fp32", 0, 0)


FUNCTIONS = (
    Function("block", (STATE,), (STATE_OUT,), lambda state: {"state_out": (state * 5 + 1) % PRIME}),
    Function("map", (ROWS,), (ROWS_OUT,), lambda rows: {"rows_out": (rows * 7 + 2) % PRIME}),
    Function(
        "fold",
        (ROWS, STATE),
        (STATE_OUT, ROWS_OUT),
        lambda rows, state: {"state_out": (state * 3 + rows.sum(1)) % PRIME, "rows_out": rows + state[:, None]},
    ),
    Function("query", (ROWS, STATE), (ROWS_OUT,), lambda rows, state: {"rows_out": rows * state[:, None] % PRIME}),
    Function("peek", (ROWS,), (STATE_OUT,), lambda rows: {"state_out": rows.sum(1) % PRIME}),
)
COMPONENTS = {function.name: function for function in FUNCTIONS}


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """One to five steps. `state` is overwritten; every step that makes rows makes a new value."""
    rows, steps = ["rows"], []
    for index in range(draw(st.integers(1, 5))):
        name = draw(st.sampled_from(sorted(COMPONENTS)))
        function = COMPONENTS[name]
        outputs = {"state_out": "state", "rows_out": f"rows{index}"}
        inputs = {"rows": draw(st.sampled_from(rows)), "state": "state"}
        size = draw(st.integers(1, 4))
        chunk = {
            "map": draw(st.sampled_from([None, Chunk("n", size)])),
            "fold": Chunk("n", size),
            "query": Chunk("n", size),
            "peek": Chunk("n", size, only_first=True),
        }.get(name)
        carry = {"state_out": "state"} if name in ("block", "fold") else {}
        repeat = draw(st.integers(1, 4)) if name == "block" else 1
        read = {s.name: inputs[s.name] for s in function.inputs}
        made = {s.name: outputs[s.name] for s in function.outputs}
        steps.append(Step(name, read, made, "encode", repeat, chunk, carry))
        rows += [value for graph, value in made.items() if graph == "rows_out"]
    written = dict.fromkeys(value for step in steps for value in step.outputs.values())
    shown = tuple(_session(STATE if value == "state" else ROWS, value) for value in written)
    return Pipeline((_session(ROWS, "rows"), _session(STATE, "state")), shown, tuple(steps), {"state": 4.0})


def _session(like: TensorSpec, name: str) -> TensorSpec:
    return spec(name, *({"b": "batch", "n": "length"}.get(str(d), d) for d in like.shape))


def manifest(pipeline: Pipeline) -> Manifest:
    profile = Profile("default", {"batch": Range(1, 1, 3), "length": Range(1, 5, 9)})
    made = Manifest(
        schema_version=SCHEMA_VERSION,
        source=Source("random", "random", "", {}, False),
        precision="fp32",
        target="cpu",
        opset=18,
        components=tuple(COMPONENTS[name].entry for name in dict.fromkeys(s.component for s in pipeline.steps)),
        pipeline=pipeline,
        profiles=(profile,),
        tolerances=(),
        golden=(),
        tools={},
        files={},
    )
    check_wiring(made)
    return made


def reference(pipeline: Pipeline, feeds: Arrays) -> dict[str, Array]:
    values = {"state": np.full((len(feeds["rows"]), WIDTH), 4), **feeds}
    for step in pipeline.steps:
        function = COMPONENTS[step.component]
        state = {graph: values[value] for graph, value in step.inputs.items()}
        calls = []
        for rows in _slices(step, state):
            chunk = {} if rows is None else {"rows": state["rows"][:, rows]}
            calls.append(function.call(**{**state, **chunk}))
            state |= {graph: calls[-1][output] for output, graph in step.carry.items()}
        for output, value in step.outputs.items():
            parts = [call[output] for call in calls]
            values[value] = np.concatenate(parts, axis=1) if step.chunk and output == "rows_out" else parts[-1]
    return values


def _slices(step: Step, state: Arrays) -> list[slice | None]:
    if step.chunk is None:
        return [None] * step.repeat
    starts = range(0, state["rows"].shape[1], step.chunk.size)
    return [slice(start, start + step.chunk.size) for start in starts][: 1 if step.chunk.only_first else None]  # type: ignore[return-value]


@settings(max_examples=80, derandomize=True, deadline=None, database=None)
@given(st.data())
def test_plans_compute_what_the_pipeline_says(data: st.DataObject) -> None:
    pipeline = data.draw(pipelines())
    names = [s.name for s in pipeline.outputs]
    wanted = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    batch, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    with_state = data.draw(st.booleans())
    part = for_run(manifest(pipeline), wanted)
    random = np.random.default_rng(0)
    plan = None
    for _ in range(2):  # a plan is used again for other arrays of the same sizes
        feeds = {"rows": random.integers(0, 50, (batch, length, WIDTH))}
        if with_state:
            feeds["state"] = random.integers(0, 50, (batch, WIDTH))
        sizes = check_feeds(part, feeds)
        if plan is None:
            plan = ExecutionPlan(part, COMPONENTS, HostMemory(), sizes, check_sizes(part, feeds, sizes))
        expected = reference(pipeline, feeds)
        got = plan.run(feeds)
        assert list(got) == wanted
        for name in wanted:
            np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
