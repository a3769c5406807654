"""`cut_module`: a PyTorch module becomes a `Cut`, without being told how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from perceiver_exporters.component import Component, Cut
from perceiver_exporters.cutting.call import Example
from perceiver_exporters.cutting.part import Part
from perceiver_exporters.cutting.program import Program, capture, is_size
from perceiver_exporters.cutting.repeats import find_repeats
from perceiver_exporters.cutting.segments import Segment, groups_of, named_segments, segment
from perceiver_exporters.cutting.sites import Kind, Site, find_sites
from perceiver_runtime.errors import CheckError
from perceiver_runtime.pipeline import Pipeline, Stage, Step
from perceiver_runtime.tensors import Profile, TensorSpec


@dataclass(frozen=True)
class Cutting:
    """A module cut into components, and how that was decided.

    Attributes:
        cut: The components and their pipeline.
        note: Why there is one component only; empty if there are several.
    """

    cut: Cut
    note: str = ""


def cut_module(
    module: nn.Module,
    example: Example,
    inputs: tuple[TensorSpec, ...],
    profile: Profile,
    names: Sequence[str] = (),
) -> Cutting:
    """Trace a module and cut it into components.

    Args:
        module: The module, in evaluation mode.
        example: An example call, by the names of `forward`'s parameters.
        inputs: Specs of the tensor inputs, with symbolic dimensions.
        profile: Ranges of these dimensions.
        names: Paths of the submodules that are to be components (`layers.*`: all of a list as one); none: where
            latents enter, where they are processed, and where answers are read from them.

    Returns:
        The cut. Its components' modules have the weights of the module, not copies.

    Raises:
        CheckError: PyTorch can't trace the module.
        UsageError: A name is of no submodule that runs.
    """
    program = capture(module, example, inputs, profile)
    repeats, sites = find_repeats(program), find_sites(program)
    segments = named_segments(program, repeats, names) if names else segment(program, repeats, groups_of(sites))
    note = ""
    if len(segments) == 1 and segments[0].repeat is None and not names:
        segments, note = [Segment("model", 0, len(program.steps))], _reason(sites)
    latents = frozenset(site.queries for site in sites if site.kind is Kind.READ)
    return Cutting(_Assembly(program, latents).cut(segments), note)


def _reason(sites: Sequence[Site]) -> str:
    """Why a module stays whole."""
    kinds = {site.kind for site in sites}
    if not kinds:
        return "no attention was found in it"
    if Kind.READ in kinds and len(kinds) > 1:
        return "its layers read the inputs between others, with weights of their own"
    return f"all its attention is of {', '.join(kind.value for kind in kinds)}, with weights of their own"


class _Assembly:
    """Components and steps from segments."""

    def __init__(self, program: Program, latents: frozenset[str]) -> None:
        self.program = program
        self.latents = latents
        self.index = {node: i for i, node in enumerate(program.steps)}
        self.values = self._value_names()

    def cut(self, segments: Sequence[Segment]) -> Cut:
        made = [self._component(each, last=each is segments[-1]) for each in segments]
        steps = tuple(step for _, step in made)
        outputs, aliases = [], {}
        for name, node in zip(self.program.outputs, self.program.results, strict=True):
            spec = self.program.spec(node, name)
            if spec is None:
                raise CheckError(
                    f"output {name}: expected sizes that are numbers or those of an input, got "
                    f"{list(node.meta['val'].shape)}; return it in another shape"
                )
            outputs.append(spec)
            if self.values[node] != name:
                aliases[name] = self.values[node]
        pipeline = Pipeline(self.program.inputs, tuple(outputs), steps, aliases=aliases)
        return Cut(tuple(component for component, _ in made), pipeline, self.program.profile)

    def _value_names(self) -> dict[fx.Node, str]:
        """Names of values in the pipeline: inputs and results as the user's module names them."""
        inputs = {node: spec.name for node, spec in zip(self.program.placeholders, self.program.inputs, strict=True)}
        names: dict[fx.Node, str] = dict(inputs)
        for name, node in zip(self.program.outputs, self.program.results, strict=True):
            names.setdefault(node, f"{name}_out" if name in inputs.values() else name)
        return names

    def _name(self, node: fx.Node) -> str:
        if node not in self.values:
            spec = self.program.spec(node, "")
            latent = spec is not None and len(spec.shape) > 1 and str(spec.shape[-2]) in self.latents
            base = "latents" if latent else "tokens"
            name, taken, number = base, set(self.values.values()), 2
            while name in taken:
                name, number = f"{base}_{number}", number + 1
            self.values[node] = name
        return self.values[node]

    def _component(self, each: Segment, *, last: bool) -> tuple[Component, Step]:
        steps = self.program.steps
        length = each.repeat.length if each.repeat else each.end - each.start
        inside = steps[each.start : each.start + length]
        if each.repeat is None:
            after = {n for n in inside if self._read_after(n, each.end)}
            made, renamed = [n for n in inside if n in after], {n: n for n in after}
        else:
            repeat = each.repeat
            shift = length * (repeat.count - 1)
            late = {steps[each.start + i]: steps[each.start + i + shift] for i in range(length)}
            made = [n for i, n in enumerate(inside) if i in repeat.carries or self._read_after(late[n], each.end)]
            renamed = {n: late[n] for n in made}
        reads, part = self._part(inside, made, each)
        inputs = tuple(self._spec(n) for n in reads)
        outputs = tuple(self._spec(renamed[n], n, suffix={s.name for s in inputs}) for n in made)
        carry = {}
        if each.repeat is not None:
            for offset, first in each.repeat.carries.items():
                output = outputs[made.index(steps[each.start + offset])].name
                carry[output] = inputs[reads.index(first)].name
                # ... the value of the last repetition takes the place of the first one's
        values = {spec.name: self._name(renamed[n]) for spec, n in zip(outputs, made, strict=True)}
        stage: Stage = "decode" if last and each.name.startswith("decoder") else "encode"
        step = Step(
            each.name,
            {spec.name: self._name(n) for spec, n in zip(inputs, reads, strict=True)},
            values,
            stage,
            repeat=each.repeat.count if each.repeat else 1,
            carry=carry,
        )
        return Component(each.name, part, inputs, outputs), step

    def _spec(self, node: fx.Node, shaped: fx.Node | None = None, suffix: set[str] | None = None) -> TensorSpec:
        name = self._name(node)
        if suffix and name in suffix:
            name = f"{name}_out"
        spec = self.program.spec(shaped or node, name)
        assert spec is not None  # edges with others are not cut
        return spec

    def _read_after(self, node: fx.Node, end: int) -> bool:
        return node in self.program.results or any(self.index.get(user, -1) >= end for user in node.users)

    def _part(self, inside: Sequence[fx.Node], made: Sequence[fx.Node], each: Segment) -> tuple[list[fx.Node], Part]:
        return PartBuilder(self.program, inside).build(made, each.name)


class PartBuilder:
    """Copies steps into a graph of their own, with all that they read and no input determines."""

    def __init__(self, program: Program, inside: Sequence[fx.Node]) -> None:
        self.program = program
        self.inside = inside
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        self.scopes: dict[str, str] = {}
        self.tensors: dict[str, Tensor] = {}
        self.reads: list[fx.Node] = []

    def build(self, made: Sequence[fx.Node], name: str) -> tuple[list[fx.Node], Part]:
        """The values that the steps read from others, and the module that computes `made` from them."""
        own = set(self.inside)
        for node in self.inside:
            for read in node.all_input_nodes:
                if read in self.program.dependent and read not in own and read not in self.reads:
                    self.reads.append(read)
        order = {node: i for i, node in enumerate(self.program.graph.nodes)}
        self.reads.sort(key=order.__getitem__)
        self._reach_symbols()
        for node in self.reads:
            copy = self.graph.placeholder(node.name)
            copy.meta["val"] = node.meta["val"]
            self.copies[node] = copy
        for node in self.inside:
            self._copy(node)
        results = tuple(self.copies[node] for node in made)
        self.graph.output(results if len(results) != 1 else results[0])
        self.graph.lint()
        return self.reads, Part(self.graph, self.tensors, self.scopes)

    def _reach_symbols(self) -> None:
        """Read an input of the model too where a size is needed that no other value has."""
        needed = {str(n.meta["val"]) for n in self._sizes() if isinstance(n.meta["val"], torch.SymInt)}
        held = {str(size) for node in self.reads for size in node.meta["val"].shape}
        for symbol in sorted(needed & set(self.program.symbols) - held):
            for node in self.program.placeholders:
                if symbol in map(str, node.meta["val"].shape) and node not in self.reads:
                    self.reads.append(node)
                    break

    def _sizes(self) -> set[fx.Node]:
        """Sizes of values that the steps read, directly or through what no input determines."""
        found: set[fx.Node] = set()
        waiting = list(self.inside)
        own = set(self.inside)
        while waiting:
            node = waiting.pop()
            for read in node.all_input_nodes:
                if read in found or (read in self.program.dependent):
                    continue
                if is_size(read) and read.target is torch.ops.aten.sym_size.int:
                    source = read.args[0]
                    if source not in own:
                        found.add(read)
                    continue
                found.add(read)
                waiting.append(read)
        return {node for node in found if is_size(node)}

    def _copy(self, node: fx.Node) -> fx.Node:
        if node in self.copies:
            return self.copies[node]
        if is_size(node) and (known := self._size(node)) is not None:
            self.copies[node] = known
            return known
        if node.op == "get_attr":
            self.tensors[str(node.target)] = self.program.tensors[str(node.target)]
        copy = self.graph.node_copy(node, self._copy)
        copy.meta["val"] = node.meta.get("val")
        if node.op == "call_function":
            self.scopes[copy.name] = self.program.scope(node)
        self.copies[node] = copy
        return copy

    def _size(self, node: fx.Node) -> fx.Node | None:
        """A size, as that of a value which is at hand."""
        for read in self.reads:
            for axis, size in enumerate(read.meta["val"].shape):
                if str(size) == str(node.meta["val"]) and isinstance(size, torch.SymInt):
                    made = self.graph.call_function(torch.ops.aten.sym_size.int, (self.copies[read], axis))
                    made.meta["val"] = size
                    return made
        return None


def parameters_of(cut: Cut) -> Mapping[str, int]:
    """Number of parameters of each component."""
    return {c.name: sum(p.numel() for p in c.module.parameters()) for c in cut.components}
