"""Tests of a group run on one worker, which makes what they share once. pytest 9.2 hides groups from xdist 3.8."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("grouped")
def test_groups_are_seen(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("loadgroup", False):
        pytest.skip("no workers that groups are spread over")
    assert request.node.nodeid.endswith("@grouped")
