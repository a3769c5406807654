"""Results of a bisection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perceiver_exporters.diagnose.bisection.differences import Difference

Kind = Literal["node", "component", "step", "backend"]


@dataclass(frozen=True)
class Diagnosis:
    """One place where a bundle differs from its reference.

    Attributes:
        component: The component.
        kind: `node`: this node is the first with a wrong result, or differs from a fresh export's. `component`: this
            component fails; without its source the node is unknown. `step`: the pipeline runs components in another way
            than its source. `backend`: the graph is right, its execution by the backend is not.
        why: The reason, as text.
        node: Name of the node.
        op_type: Its operator.
        tensor: The value that was compared.
        call: Which call of the component in the pipeline, repetitions and chunks included, counted from 0.
        error: Relative L2 distance of the bundle's value to the FP32 graph's.
        noise: The same of a fresh export at the bundle's precision.
        bound: Largest error that passes.
        differences: How the node differs from a fresh export's.
        replay: Directory for `perceiver-export replay`.
    """

    component: str
    kind: Kind
    why: str
    node: str = ""
    op_type: str = ""
    tensor: str = ""
    call: int = 0
    error: float = 0.0
    noise: float = 0.0
    bound: float = 0.0
    differences: tuple[Difference, ...] = ()
    replay: str = ""


@dataclass(frozen=True)
class Bisection:
    """All diagnoses, and how many values were `compared`."""

    diagnoses: tuple[Diagnosis, ...]
    compared: int

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return not self.diagnoses
