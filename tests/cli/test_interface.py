"""The public interface is the recorded one; names in tables that may not import torch are those that there are."""

from __future__ import annotations

import typing

import pytest
from cli.interface import RECORD, interface

import perceiver_deploy
from perceiver_deploy.api.options import ExportOptions, ExportSettings
from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.cli.values import BACKEND, ENGINE_TARGET, PRECISION, TARGET
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.backends import BACKENDS


def test_the_interface_is_the_recorded_one() -> None:
    recorded = RECORD.read_text(encoding="utf-8").splitlines()
    assert interface().splitlines() == recorded, "if that is meant: python tests/cli/interface.py, and the changelog"


def test_every_exported_name_is_there() -> None:
    for name in perceiver_deploy.__all__:
        assert getattr(perceiver_deploy, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        perceiver_deploy.no_such_name  # noqa: B018


def test_names_of_options_are_those_of_the_tables() -> None:
    assert PRECISION.names == tuple(PRECISIONS)
    assert TARGET.names == tuple(TARGETS)
    assert ENGINE_TARGET.names == tuple(t.name for t in TARGETS.values() if t.engines is not None)
    assert BACKEND.names == ("auto", *BACKENDS)


def test_keywords_of_export_are_the_fields_of_its_options() -> None:
    assert typing.get_type_hints(ExportSettings) == typing.get_type_hints(ExportOptions)


def test_options_of_an_export_are_one_object() -> None:
    from perceiver_deploy.api.options import export_options

    loading = LoadOptions(revision="main")
    assert export_options(loading, {"precision": "int8"}) == ExportOptions(revision="main", precision="int8")
    with pytest.raises(TypeError, match="precisio"):
        export_options(loading, {"precisio": "int8"})  # type: ignore[typeddict-unknown-key]
