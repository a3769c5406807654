"""What a bisection finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perceiver_exporters.diagnose.bisection.differences import Difference

Kind = Literal["node", "component", "step", "backend"]


@dataclass(frozen=True)
class Diagnosis:
    """One place where a bundle departs from its reference.

    | Kind | What it says |
    |---|---|
    | `node` | this node of this component is the first whose result is wrong, or differs from a fresh export's |
    | `component` | this component fails; the node is unknown, because the source can't be reached |
    | `step` | the components are right, the pipeline runs them in another way than the source's does |
    | `backend` | the graph is right as its nodes define it; what the backend makes of it is not |

    `error`, `noise` and `bound` are relative L2 distances to the FP32 graph at `tensor`: of the bundle, of a fresh
    export at the bundle's precision, and the largest that passes. `call` counts the component's runs in the
    pipeline, repetitions and pieces included, from 0. `replay` is a directory for `perceiver-export replay`.
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
    """Every component that departs, with its first departure. None: the bundle is what its source exports to."""

    diagnoses: tuple[Diagnosis, ...]
    compared: int

    @property
    def passed(self) -> bool:
        """Whether nothing departs."""
        return not self.diagnoses
