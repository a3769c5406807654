"""Findings of the range audit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from perceiver_runtime.errors import CheckError

Action = Literal["protected", "refused"]


@dataclass(frozen=True)
class AuditFinding:
    """`protected`: the rule keeps the node in FP32. `refused`: the model can't have this precision."""

    rule: str
    component: str
    node: str
    action: Action
    why: str

    def __str__(self) -> str:
        done = "kept in FP32" if self.action == "protected" else "refused"
        return f"{self.rule} {self.component}: {self.node} {done}: {self.why}"


def refuse(findings: Iterable[AuditFinding]) -> None:
    """Raise CheckError if any finding refuses."""
    if refused := [finding for finding in findings if finding.action == "refused"]:
        raise CheckError("; ".join(map(str, refused)) + ": export this model in fp32")
