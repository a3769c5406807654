"""JSON that Python's own parser takes or trips over is refused, by one error, in every record of a bundle."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny_bundles

from perceiver_runtime import BundleError, load_bundle
from perceiver_runtime.cli.report import to_json
from perceiver_runtime.format import strict_json
from perceiver_runtime.format.tuning import read_tuning, tuning_path
from perceiver_runtime.tensorrt.builder.kit import KIT_NAME, read_kit
from perceiver_runtime.tensorrt.sidecar import read_sidecar

BROKEN = {
    "nan": b'{"a": NaN}',
    "infinity": b'{"a": [Infinity]}',
    "minus infinity": b'{"a": -Infinity}',
    "beyond a double": b'{"a": 1e999}',
    "a name twice": b'{"a": 1, "b": {"c": 1, "c": 2}}',
    "deep nesting": b"[" * 200_000 + b"]" * 200_000,
    "nesting": b"[" * 65 + b"]" * 65,
    "a long integer": b'{"a": 1' + b"0" * 5_000 + b"}",
    "an integer beyond a double": b'{"a": 1' + b"0" * 400 + b"}",
    "half a surrogate pair": rb'{"a": "\ud800"}',
    "no UTF-8": b'{"a": "\xff"}',
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "nothing": b"",
    "two documents": b"{} {}",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is the parser's own
        strict_json.loads(content)


def test_json_is_read_as_it_is() -> None:
    content = rb'{"a": [1, -2.5e-3, true, null, "\ud83d\ude00", "\u00e9"], "b": {"a": 1}, "c": 12345678901234567890}'
    expected = {"a": [1, -2.5e-3, True, None, "\U0001f600", "\u00e9"], "b": {"a": 1}, "c": 12345678901234567890}
    assert strict_json.loads(content) == expected
    assert strict_json.loads(strict_json.dumps(expected)) == expected


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nonfinite_numbers_are_never_written(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json.dumps({"a": [number]})
    assert strict_json.loads(to_json({"a": [number, 1.5]})) == {"a": [None, 1.5]}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_every_reader_answers_with_a_bundle_error(copy: Path, content: bytes, tmp_path: Path) -> None:
    for path, read in (
        (copy / KIT_NAME, lambda: read_kit(load_bundle(tiny_bundles.rehash(copy, KIT_NAME)))),
        (tuning_path(copy), lambda: read_tuning(copy)),
        (tmp_path / "sidecar.json", lambda: read_sidecar(tmp_path / "sidecar.json")),
        (copy / "manifest.json", lambda: load_bundle(copy)),
    ):
        path.write_bytes(content)
        with pytest.raises(BundleError):
            read()


def test_a_manifest_with_a_tolerance_of_infinity_is_refused(copy: Path) -> None:
    tiny_bundles.change(copy, lambda m: m["tolerances"][0].update(rel_l2=math.inf))
    with pytest.raises(BundleError, match="Infinity is no JSON number"):
        load_bundle(copy)
