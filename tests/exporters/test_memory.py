"""The memory estimate: the arena's rules one by one, and what lives at the same time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver_exporters.component import Component
from perceiver_exporters.memory.arena import FIRST_REGION, Arena
from perceiver_exporters.memory.liveness import Operation, held, peak
from perceiver_runtime.tensors import TensorSpec

MB = FIRST_REGION


def test_regions_double_and_count_as_far_as_they_were_touched() -> None:
    arena = Arena()
    for size in (MB, MB, 3 * MB):
        arena.allocate(size)
    assert [sum(block.size for block in region.blocks) for region in arena.regions] == [MB, 2 * MB, 4 * MB]
    assert arena.touched == 5 * MB


def test_the_smallest_free_chunk_that_fits_is_taken_and_split() -> None:
    arena = Arena()
    large, small = arena.allocate(8 * MB), arena.allocate(2 * MB)
    arena.release(large)
    arena.release(small)
    first, second = arena.allocate(2 * MB), arena.allocate(4 * MB)  # of 8, and of the 6 that are left rather than of 8
    assert (first.start, second.start) == (0, 2 * MB)
    assert [block.free for block in arena.regions[1].blocks] == [True]
    assert arena.touched == 10 * MB


def test_neighbours_that_are_free_become_one_and_others_do_not() -> None:
    arena = Arena()
    whole = arena.allocate(16 * MB)
    arena.release(whole)
    first, second, third = (arena.allocate(4 * MB) for _ in range(3))
    arena.release(first)
    arena.release(third)
    arena.allocate(8 * MB)  # what follows the second: its neighbour was free, the first is too small
    assert arena.touched == 16 * MB
    arena.release(second)
    arena.allocate(8 * MB)
    assert arena.touched == 16 * MB


def test_little_that_is_left_of_a_chunk_stays_with_it() -> None:
    arena = Arena()
    block = arena.allocate(4 * MB)
    arena.release(block)
    assert arena.allocate(3 * MB).size == 4 * MB


def test_a_value_lives_from_its_maker_to_its_last_reader() -> None:
    def chain(*reads: tuple[int, ...]) -> list[Operation]:
        return [Operation(frozenset(each), {index: 4 * MB}) for index, each in enumerate(reads)]

    assert held(chain((), (0,), (1,), (2,)), frozenset()) == 8 * MB
    assert held(chain((), (0,), (1,), (2, 0)), frozenset()) == 12 * MB
    assert held(chain((), (0,), (1,), (2,)), frozenset({0})) == 12 * MB


class SelfAttention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """One head of width 8."""
        x = x + 1.0
        return F.scaled_dot_product_attention(x, x, x)


class Asked(nn.Module):
    def forward(self, x: Tensor, key: Tensor) -> Tensor:
        """Keys that another component made."""
        return F.scaled_dot_product_attention(x, key, key)


def needed(module: nn.Module, tokens: int, inputs: tuple[str, ...] = ("x",), *, split: bool = False) -> float:
    """Bytes over those of the scores."""
    specs = tuple(TensorSpec(name, "float32", (1, 1, tokens, 8)) for name in inputs)
    component = Component("c", module, specs, (TensorSpec("y", "float32", (1, 1, tokens, 8)),))
    return peak(component, dict.fromkeys(inputs, (1, 1, tokens, 8)), split=split) / (4 * tokens * tokens)


@pytest.mark.parametrize(("tokens", "scores"), [(1000, 2), (1024, 0)])
def test_processors_never_make_the_scores_of_many_latents(tokens: int, scores: int) -> None:
    assert needed(SelfAttention(), tokens) == pytest.approx(scores, abs=0.1)


def test_scores_of_another_components_keys_are_products() -> None:
    assert needed(Asked(), 2048, ("x", "key")) == pytest.approx(2, abs=0.1)


def test_scores_of_chunks_are_a_sum_of_two_parts() -> None:
    assert needed(Asked(), 2048, ("x", "key"), split=True) == pytest.approx(3, abs=0.1)


def test_the_module_stays_as_it_is() -> None:
    module = nn.Linear(8, 8)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    needed(module, 4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
