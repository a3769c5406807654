"""One model of benchmarks/gpu/families.py: `one_model.py NAME DIRECTORY ROUNDS DEVICE [SKIP ...]`."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1])]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from peers import first_output, first_row  # noqa: E402
from record import random_weights, ratios  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._pytree import tree_map_only  # noqa: E402

from perceiver_deploy.peers import Workload  # noqa: E402
from perceiver_deploy.peers.onnx_runtimes import PROVIDERS, plain_export  # noqa: E402
from perceiver_deploy.sources.model import Model  # noqa: E402
from perceiver_deploy.sources.source import blueprint, resolve  # noqa: E402
from perceiver_exporters.export import export_bundle  # noqa: E402
from perceiver_exporters.ir.trace import SharedTraces  # noqa: E402
from perceiver_exporters.rules import REWRITE_RULES  # noqa: E402
from perceiver_exporters.rules.attention.attention_form import ATTENTION_FORM  # noqa: E402
from perceiver_runtime import Session, open_session  # noqa: E402
from perceiver_runtime.benchmark.latency import cuda_graphs  # noqa: E402
from perceiver_runtime.benchmark.timing import Call, interleave  # noqa: E402
from perceiver_runtime.format.schema import encode  # noqa: E402
from perceiver_runtime.golden import load_golden  # noqa: E402
from perceiver_runtime.measure.compare import relative_l2  # noqa: E402
from perceiver_runtime.measure.verify import verify  # noqa: E402
from perceiver_runtime.tensors import Array  # noqa: E402

import onnxruntime as ort  # noqa: E402

BACKENDS = {"cuda": "onnxruntime-cuda", "cpu": "onnxruntime"}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
PRODUCTS = [rule for rule in REWRITE_RULES if rule is not ATTENTION_FORM]
FORMS = {
    "fp32": ("fp32", REWRITE_RULES),
    "fp16": ("fp16", REWRITE_RULES),
    "fp16, attention as products": ("fp16", PRODUCTS),
}
REFERENCES = ("torch eager, fp32", "torch eager, fp16", "torch.compile, fp32", "torch.compile, fp16")


@dataclass(frozen=True)
class Setting:
    """A model, one input for it, where its graphs are kept, and what PyTorch calls the device."""

    model: Model
    feeds: Mapping[str, Array]
    directory: Path
    device: str

    def module(self, dtype: torch.dtype, *, compiled: bool = False) -> Call:
        """The module in that type, from tensors on the device to tensors there; compiled with CUDA graphs."""
        moved = copy.deepcopy(self.model.module).to(self.device, dtype)
        work = Workload(replace(self.model, module=moved), self.feeds, 1, self.directory)
        module, arguments, named = work.call()

        def on_device(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, dtype if tensor.is_floating_point() else tensor.dtype)

        arguments, named = tree_map_only(Tensor, on_device, (arguments, dict(named)))
        mode = "reduce-overhead" if self.device == "cuda" else "default"
        run = torch.compile(module, mode=mode) if compiled else module

        def call() -> object:
            with torch.inference_mode():
                answer = run(*arguments, **named)
            if self.device == "cuda":
                torch.cuda.synchronize()
            return answer

        return call

    def plain(self) -> Call:
        """What `torch.onnx.export` makes of the whole module, on ONNX Runtime, its values on the device."""
        path = plain_export(Workload(self.model, self.feeds, 1, self.directory / self.model.name))
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, providers=[PROVIDERS[self.device]])
        if session.get_providers()[0] != PROVIDERS[self.device][0]:
            raise RuntimeError(f"expected {PROVIDERS[self.device][0]}, got {session.get_providers()[0]}")
        binding = session.io_binding()
        for node in session.get_inputs():
            value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(self.feeds[node.name]), self.device, 0)
            binding.bind_ortvalue_input(node.name, value)
        for node in session.get_outputs():
            binding.bind_output(node.name, self.device, 0)

        def call() -> object:
            session.run_with_iobinding(binding)
            return binding.get_outputs()

        return call

    def bundle(self, session: Session) -> Call:
        """A session, from tensors on the device into tensors there."""
        answer = session.run(self.feeds)
        out = {name: torch.from_numpy(array.copy()).to(self.device) for name, array in answer.items()}
        given = {s.name: torch.from_numpy(np.array(self.feeds[s.name])).to(self.device) for s in session.inputs}
        caller = session.caller()
        return lambda: caller.run(given, out=out)


def array_of(answer: object) -> Array:
    """The first output of what a call returns, on the host."""
    if isinstance(answer, list) and isinstance(answer[0], ort.OrtValue):
        return np.asarray(answer[0].numpy())
    return first_output(tree_map_only(Tensor, lambda each: each.cpu().numpy(), answer))


def sessions(setting: Setting) -> dict[str, Session]:
    """A session of each form of the bundle, whose golden sample is the one input."""
    made, traces = replace(blueprint(setting.model), golden=(setting.feeds,)), SharedTraces()
    opened = {}
    for form, (precision, rules) in FORMS.items():
        path = setting.directory / f"{setting.model.name}-{form.replace(',', '').replace(' ', '-')}"
        if not path.exists():
            export_bundle(made, path, precision, "cuda", tracer=traces, rules=rules)
        opened[form] = open_session(path, BACKENDS[setting.device])
    return opened


def prepared(
    setting: Setting, opened: Mapping[str, Session], skipped: tuple[str, ...]
) -> tuple[dict[str, Call], dict[str, str]]:
    """What is timed, each called once; and why others are not. Names that begin as one of `skipped` are left out."""
    makers: dict[str, Callable[[], Call]] = {"plain ONNX Runtime, fp32": setting.plain}
    for name, dtype in DTYPES.items():
        makers[f"torch eager, {name}"] = partial(setting.module, dtype)
        makers[f"torch.compile, {name}"] = partial(setting.module, dtype, compiled=True)
    for form, session in opened.items():
        makers[f"bundle, {form}"] = partial(setting.bundle, session)
        makers[f"bundle, {form}, from the host"] = lambda s=session: partial(s.run, setting.feeds)
    made: dict[str, Call] = {}
    failed = {}
    for name, make in makers.items():
        if name.startswith(skipped):
            continue
        call = attempt(make)
        if isinstance(call, str):
            failed[name] = call
            print(f"{name}: {call}", flush=True)
        else:
            made[name] = call
    return made, failed


def attempt(make: Callable[[], Call]) -> Call | str:
    """The call, which has run once, or why it can't."""
    try:
        call = make()
        call()
    except Exception as error:  # of any of these libraries
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.200}"
    return call


def parity(session: Session) -> dict[str, Any]:
    """Whether a bundle passes on this device, and its tensor that is nearest to its tolerance."""
    found = verify(session)
    return {"passed": found.passed, "worst": max(found.reports, key=lambda each: each.rel_l2 / (each.tolerance or 1))}


def measure(session: Session, timed: Mapping[str, Call], rounds: int) -> list[dict[str, Any]]:
    """Errors against the golden sample of a session, which is FP64's, and then times."""
    reference = load_golden(session.bundle)[0].values[session.outputs[0].name]
    errors = {name: relative_l2(reference, array_of(call())) for name, call in timed.items()}
    times = interleave(timed, rounds, warmup=10)
    return [
        {
            "variant": name,
            "milliseconds": float(np.median(times[name])),
            "relative_l2": errors[name],
            "ratios": compared,
        }
        for name, compared in ratios(times, REFERENCES).items()
    ]


def main() -> None:
    name, directory, rounds, device, *skipped = sys.argv[1:]
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    model = random_weights(resolve(name))
    setting = Setting(model, first_row(model), Path(directory), device)
    opened = sessions(setting)
    timed, failed = prepared(setting, opened, tuple(skipped))
    print("ready", flush=True)
    sys.stdin.readline()
    found = {
        "parity": {form: parity(session) for form, session in opened.items()},
        "rows": measure(opened["fp32"], timed, int(rounds)),
        "cuda_graphs": {form: cuda_graphs(session) for form, session in opened.items()},
        "failed": failed,
    }
    Path(directory, f"{name}.json").write_text(json.dumps(encode(found)), encoding="utf-8")


if __name__ == "__main__":
    main()
