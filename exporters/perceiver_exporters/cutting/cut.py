"""`cut_module`: a PyTorch module becomes a `Cut`, without being told how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx, nn

from perceiver_exporters.component import Component, Cut
from perceiver_exporters.cutting.call import Example
from perceiver_exporters.cutting.check import check_cut
from perceiver_exporters.cutting.part_builder import PartBuilder
from perceiver_exporters.cutting.program import Program, capture
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
    cut = _Assembly(program, latents).cut(segments)
    check_cut(module, cut, example)
    return Cutting(cut, note)


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
        inside, ends = self._applied(each)
        made = [node for i, node in enumerate(inside) if self._needed(each, i, ends[node])]
        reads, part = PartBuilder(self.program, inside).build(made)
        inputs = tuple(self._spec(node, self._name(node)) for node in reads)
        taken = {spec.name for spec in inputs}
        names = {node: self._name(ends[node]) for node in made}
        outputs = tuple(self._spec(n, f"{names[n]}_out" if names[n] in taken else names[n]) for n in made)
        stage: Stage = "decode" if last and each.name.startswith("decoder") else "encode"
        step = Step(
            each.name,
            {spec.name: self._name(node) for spec, node in zip(inputs, reads, strict=True)},
            {spec.name: names[node] for spec, node in zip(outputs, made, strict=True)},
            stage,
            repeat=each.repeat.count if each.repeat else 1,
            carry={
                outputs[made.index(inside[offset])].name: inputs[reads.index(first)].name
                for offset, first in (each.repeat.carries.items() if each.repeat else ())
            },
        )
        return Component(each.name, part, inputs, outputs), step

    def _applied(self, each: Segment) -> tuple[Sequence[fx.Node], dict[fx.Node, fx.Node]]:
        """The steps of one application, and for each the node that has its value after the last one."""
        steps = self.program.steps[each.start : each.end]
        if each.repeat is None:
            return steps, {node: node for node in steps}
        length = each.repeat.length
        return steps[:length], dict(zip(steps[:length], steps[-length:], strict=True))

    def _needed(self, each: Segment, offset: int, end: fx.Node) -> bool:
        """Whether a step's value leaves its component: carried to the next repetition, or read later."""
        carried = each.repeat is not None and offset in each.repeat.carries
        later = any(self.index.get(user, -1) >= each.end for user in end.users)
        return carried or later or end in self.program.results

    def _spec(self, node: fx.Node, name: str) -> TensorSpec:
        spec = self.program.spec(node, name)
        if spec is None:
            raise CheckError(
                f"{self.program.scope(node)}: expected sizes that are numbers or those of an input between components, "
                f"got {list(node.meta['val'].shape)}; name another cut (--cut), or fix the sizes (--dynamic)"
            )
        return spec
