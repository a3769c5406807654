"""Fixtures for the areas that use torch: small models run fastest on one thread, and leave the cores to other tests.

A conftest takes one by importing it. The runtime's tests import none of this: they run without torch.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """From the first test of an area on, so that what its tests share is made on one thread, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """One thread, one seed and no gradients for each test; one that sets threads of its own leaves none behind."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)
