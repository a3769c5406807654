"""ONNX translation of einsum: a matrix product or a product of elements, where the equation is one.

ONNX Runtime computes `Einsum` itself, outside of its fused products; TensorRT fuses no attention around it; and INT8
quantises products only. An outer product (rotary positions) is a Mul: TensorRT has no FP32 products for Turing.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnxscript
from onnxscript.onnx_types import TensorType

op: Any = onnxscript.opset20


@dataclass(frozen=True)
class Letters:
    """The dimensions of a product of two operands: `batch` in both and in the result, `contracted` in both only."""

    batch: str
    left: str
    right: str
    contracted: str


class _UnsupportedError(Exception):
    """The equation is no matrix product, or a merged dimension has no known size."""


def einsum(equation: str, tensors: Sequence[TensorType], path: Sequence[int] | None = None) -> TensorType:
    """torch.einsum: MatMul between transpositions and reshapes, or Mul; `Einsum` for other equations.

    Args:
        equation: Subscripts, with or without an ellipsis and a result.
        tensors: Operands.
        path: Order of contraction, which does not change the result.

    Returns:
        The contraction.
    """
    tensors = _promoted(tensors)
    try:
        made: TensorType = _product(equation, tensors)
    except _UnsupportedError:
        made = op.Einsum(*tensors, equation=equation)
    return made


def _promoted(tensors: Sequence[Any]) -> Sequence[Any]:
    """The operands in one type, the floating one if there is one: PyTorch promotes, ONNX doesn't."""
    types = {tensor.dtype for tensor in tensors}
    if len(types) == 1:
        return tensors
    wanted = next(tensor for tensor in tensors if tensor.dtype.is_floating_point())
    return [tensor if tensor.dtype == wanted.dtype else _cast(tensor, wanted) for tensor in tensors]


def _cast(tensor: Any, like: Any) -> Any:
    cast = op.CastLike(tensor, like)
    cast.shape, cast.dtype = tensor.shape, like.dtype
    return cast


def _product(equation: str, tensors: Sequence[Any]) -> Any:
    if len(tensors) != 2:
        raise _UnsupportedError
    (a, b), result = _subscripts(equation, [len(tensor.shape) for tensor in tensors])
    if set(a) | set(b) == set(result):
        return op.Mul(_spread(tensors[0], a, result), _spread(tensors[1], b, result))
    letters = _letters(a, b, result)
    sizes = _sizes(letters.batch, (a, tensors[0]), (b, tensors[1]))
    stacked = bool(letters.batch)  # then all that is left of an operand has to be one dimension
    left = _arranged(tensors[0], a, letters.batch, (letters.left, letters.contracted), sizes, merge_first=stacked)
    right = _arranged(tensors[1], b, letters.batch, (letters.contracted, letters.right), sizes)
    made = op.MatMul(left, right)
    if len(letters.right) != 1 or (stacked and len(letters.left) != 1):
        made = _reshaped(made, [0] * len(letters.batch) + _separate(letters, sizes, stacked))
    return _transposed(made, letters.batch + letters.left + letters.right, result)


def _spread(tensor: Any, letters: str, result: str) -> Any:
    """An operand with the dimensions of the result, for an equation that sums over none; size 1 where it has none."""
    ordered = _transposed(tensor, letters, "".join(letter for letter in result if letter in letters))
    missing = [axis for axis, letter in enumerate(result) if letter not in letters]
    return op.Unsqueeze(ordered, op.Constant(value_ints=missing)) if missing else ordered


def _subscripts(equation: str, ranks: Sequence[int]) -> tuple[tuple[str, ...], str]:
    """Letters of each operand and of the result, with letters in the place of ellipses."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    operands = inputs.split(",")
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    extra = max(
        (rank - len(o.replace("...", "")) for o, rank in zip(operands, ranks, strict=True) if "..." in o), default=0
    )
    shared = "".join(unused[:extra])
    made = []
    for operand, rank in zip(operands, ranks, strict=True):
        missing = rank - len(operand.replace("...", ""))
        made.append(operand.replace("...", shared[len(shared) - missing :]))
    if not arrow or any(len(set(letters)) != len(letters) or "." in letters for letters in made):
        raise _UnsupportedError
    return tuple(made), result.replace("...", shared)


def _letters(a: str, b: str, result: str) -> Letters:
    """The part that each dimension has. Raises _UnsupportedError for one that is summed over one operand alone."""
    both = set(a) & set(b)
    if not (set(a) ^ set(b)) <= set(result) or not both - set(result):
        raise _UnsupportedError
    return Letters(
        batch="".join(letter for letter in result if letter in both),
        left="".join(letter for letter in a if letter not in both),
        right="".join(letter for letter in b if letter not in both),
        contracted="".join(letter for letter in a if letter in both and letter not in result),
    )


def _sizes(batch: str, *operands: tuple[str, Any]) -> dict[str, int | None]:
    """Size of each dimension; None if it is only known at run time.

    A size of 1 is broadcast in the batch, as MatMul does it. Raises _UnsupportedError where another one is.
    """
    sizes: dict[str, int | None] = {}
    for letters, tensor in operands:
        for letter, size in zip(letters, tensor.shape, strict=True):
            known = size if isinstance(size, int) else None
            if sizes.setdefault(letter, known) != known and not (letter in batch and 1 in (sizes[letter], known)):
                raise _UnsupportedError
    return sizes


def _arranged(
    tensor: Any,
    letters: str,
    batch: str,
    groups: tuple[str, str],
    sizes: dict[str, int | None],
    *,
    merge_first: bool = True,
) -> Any:
    """The operand with the batch first, and one dimension for each group; the first group may stay as it is."""
    first, second = groups
    ordered = _transposed(tensor, letters, batch + first + second)
    if len(second) == 1 and (len(first) == 1 or not merge_first):
        return ordered
    dims = [0] * len(batch) + _merged(first, second, sizes, merge_first=merge_first)
    return _reshaped(ordered, dims)


def _merged(first: str, second: str, sizes: dict[str, int | None], *, merge_first: bool) -> list[int]:
    if len(first) == 1 or not merge_first:
        return [*[0] * len(first), -1]
    known = _known(second, sizes)
    return [-1, known] if known is not None else [_static(first, sizes), -1]


def _separate(letters: Letters, sizes: dict[str, int | None], stacked: bool) -> list[int]:
    """Sizes of the dimensions that were merged; one may be unknown."""
    kept = not stacked or len(letters.left) == 1
    left = [0] * len(letters.left) if kept else [sizes[letter] or -1 for letter in letters.left]
    made = [*left, *(sizes[letter] or -1 for letter in letters.right)]
    if made.count(-1) > 1:
        raise _UnsupportedError
    return made


def _known(letters: str, sizes: dict[str, int | None]) -> int | None:
    found = [size for letter in letters if (size := sizes[letter]) is not None]
    return math.prod(found) if len(found) == len(letters) else None


def _static(letters: str, sizes: dict[str, int | None]) -> int:
    known = _known(letters, sizes)
    if known is None:
        raise _UnsupportedError
    return known


def _reshaped(tensor: Any, dims: Sequence[int]) -> Any:
    return op.Reshape(tensor, op.Constant(value_ints=list(dims)))


def _transposed(tensor: Any, letters: str, wanted: str) -> Any:
    return tensor if letters == wanted else op.Transpose(tensor, perm=[letters.index(letter) for letter in wanted])
