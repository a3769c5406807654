"""Arrays that do not fit are refused by name, with what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles
from tiny_bundles import Arrays

from perceiver_runtime import (
    BundleError,
    FeedError,
    PerceiverError,
    Session,
    UnavailableError,
    UsageError,
    open_session,
)


def _set(name: str, change: Callable[[Any], Any]) -> Callable[[Arrays], object]:
    return lambda f: f.update({name: change(f[name])})


WRONG: dict[str, tuple[Callable[[Arrays], object], str]] = {
    "missing": (lambda f: f.pop("keys"), r"run: input keys: float32\[batch, keys, 4\] is missing"),
    "misspelt": (lambda f: f.update(key=f.pop("keys")), "no input 'key'.*did you mean keys"),
    "unknown": (lambda f: f.update(zzz=f["x"]), "no input 'zzz'; expected x, mask, keys, queries$"),
    "rank": (_set("x", lambda a: a[0]), r"expected rank 3 .* got rank 2: \[5, 4\]"),
    "fixed size": (_set("x", lambda a: a[:, :4]), r"got shape \[1, 4, 4\]: 5 is fixed"),
    "dtype double": (_set("x", lambda a: a.astype(np.float64)), r"got dtype float64; cast it: \.astype\(np\.float32\)"),
    "dtype half": (_set("x", lambda a: a.astype(np.float16)), "got dtype float16"),
    "dtype integer": (_set("keys", lambda a: a.astype(np.int32)), "got dtype int32"),
    "byte order": (_set("x", lambda a: a.astype(">f4")), "got dtype >f4"),
    "list": (_set("x", lambda a: a.tolist()), "expected a NumPy array .* got list"),
    "none": (_set("x", lambda a: None), "expected a NumPy array .* got NoneType"),
    "above the range": (_set("keys", lambda a: np.repeat(a, 5, 1)), "keys = 35; this bundle takes 1 to 32"),
    "empty": (_set("keys", lambda a: a[:, :0]), "keys = 0; this bundle takes 1 to 32"),
    "sizes disagree": (
        _set("queries", lambda a: np.repeat(a, 2, 0)),
        r"batch = 1 as elsewhere, got shape \[2, 10, 4\]",
    ),
    "mask size": (lambda f: f.update(mask=np.ones((2, 5), np.float32)), r"batch = 1 as elsewhere, got shape \[2, 5\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_feeds_are_refused(session: Session, case: str) -> None:
    change, message = WRONG[case]
    feeds = tiny_bundles.feeds()
    change(feeds)
    with pytest.raises(FeedError, match=message) as caught:
        session.run(feeds)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("feeds", [None, [], np.zeros(3)])
def test_what_holds_no_arrays_by_name_is_refused(session: Session, feeds: Any) -> None:
    for call in (session.run, session.encode, session.decode, lambda f: session.decode({}, [f])):  # type: ignore[arg-type]
        with pytest.raises(FeedError, match=r"expected arrays by name, .* got"):
            call(feeds)


def test_a_name_that_is_no_text_is_refused(session: Session) -> None:
    wrong: Any = {**tiny_bundles.feeds(), 1: np.zeros(3)}
    with pytest.raises(FeedError, match="no input 1; expected x"):
        session.run(wrong)


def test_refused_also_when_a_plan_exists(session: Session) -> None:
    """The second run of a size skips the ranges, not the arrays."""
    session.run(tiny_bundles.feeds())
    for change, message in WRONG.values():
        feeds = tiny_bundles.feeds()
        change(feeds)
        with pytest.raises(FeedError, match=message):
            session.run(feeds)
    session.run(tiny_bundles.feeds())


def test_every_profile_that_takes_all_sizes_will_do(copy: Path) -> None:
    def two_profiles(m: dict[str, Any]) -> None:
        small = m["profiles"][0]["dimensions"]
        wide = {**small, "batch": {"min": 8, "opt": 8, "max": 8}, "keys": {"min": 1, "opt": 1, "max": 2}}
        m["profiles"].append({"name": "wide", "dimensions": wide})

    with open_session(tiny_bundles.change(copy, two_profiles), threads=1) as session:
        assert session.run(tiny_bundles.feeds(8, keys=2))["logits"].shape == (8, 5, 2)
        with pytest.raises(FeedError, match="no single profile of default, wide"):
            session.run(tiny_bundles.feeds(8, keys=7))
        with pytest.raises(FeedError, match="batch = 5; this bundle takes 1 to 4 or 8 to 8"):
            session.run(tiny_bundles.feeds(5))


def test_encoded_values_are_checked_too(session: Session) -> None:
    feeds = tiny_bundles.feeds()
    queries = {"queries": feeds.pop("queries")}
    encoded = session.encode(feeds)
    with pytest.raises(FeedError, match=r"decode: input latents: .* is missing"):
        session.decode({"total": encoded["total"]}, queries)
    with pytest.raises(FeedError, match="latents: expected rank 3"):
        session.decode({**encoded, "latents": encoded["latents"][0]}, queries)
    with pytest.raises(FeedError, match="given twice"):
        session.decode(encoded, {**queries, "total": encoded["total"]})
    with pytest.raises(FeedError, match=r"decode: input queries: .* is missing"):
        session.decode(encoded)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_floats_that_are_not_finite_or_cannot_be_squared_are_refused_unless_asked_for(bundle: Path, bad: float) -> None:
    feeds = tiny_bundles.feeds()
    feeds["keys"][0, 3, 1] = bad
    encode = {name: feeds[name] for name in ("x", "keys")}
    with open_session(bundle, threads=1) as session:
        for call in (lambda: session.run(feeds), lambda: session.encode(encode)):
            with pytest.raises(FeedError, match=r"keys: expected finite .* at \[0, 3, 1\].*check_finite=False"):
                call()
        encoded = session.encode({name: tiny_bundles.feeds()[name] for name in ("x", "keys")})
        encoded["latents"][0, 1, 2] = bad
        with pytest.raises(FeedError, match=r"latents: expected finite .* at \[0, 1, 2\]"):
            session.decode(encoded, {"queries": feeds["queries"]})
    with open_session(bundle, threads=1, check_finite=False) as session:
        assert session.run(feeds)["logits"].shape == (1, 5, 2)


def test_a_float_as_large_as_can_be_squared_is_taken(session: Session) -> None:
    feeds = tiny_bundles.feeds()
    feeds["keys"][0, 0, 0] = 2.0**63
    session.run(feeds)


def test_a_range_in_the_manifest_bounds_session_inputs_and_component_inputs(copy: Path) -> None:
    def bound(m: dict[str, Any]) -> None:
        component = next(c for c in m["components"] if any(spec["name"] == "x" for spec in c["inputs"]))
        next(spec for spec in component["inputs"] if spec["name"] == "x")["range"] = {"min": -9, "max": 9}

    feeds = tiny_bundles.feeds()
    feeds["x"][0, 4, 3] = 9.5
    with (
        open_session(tiny_bundles.change(copy, bound), threads=1) as session,
        pytest.raises(FeedError, match=r"x: .* at most 9, got 9\.5 at \[0, 4, 3\]"),
    ):
        session.run(feeds)


@pytest.mark.parametrize("bounds", [(3, 2), (0, 10**40)])
def test_a_range_that_is_none_is_refused(copy: Path, bounds: tuple[int, int]) -> None:
    def bound(m: dict[str, Any]) -> None:
        m["pipeline"]["inputs"][0]["range"] = {"min": bounds[0], "max": bounds[1]}

    with pytest.raises(BundleError, match="no range of values"):
        open_session(tiny_bundles.change(copy, bound))


def test_a_default_needs_sizes_from_elsewhere(session: Session) -> None:
    with pytest.raises(FeedError, match=r"encode: input x: .* and keys: .* is missing"):
        session.encode({})


USAGE: dict[str, tuple[Callable[[Path], object], type[PerceiverError], int, str]] = {
    "backend": (lambda b: open_session(b, "tensorflow"), UsageError, 2, "'tensorflow'; expected auto, onnxruntime"),
    "threads": (lambda b: open_session(b, threads=0), UsageError, 2, "--threads"),
    "cuda": (lambda b: open_session(b, "onnxruntime-cuda"), UnavailableError, 4, "CUDAExecutionProvider.*install"),
    "output": (lambda b: open_session(b).run(tiny_bundles.feeds(), ["z"]), UsageError, 2, "output z; expected some of"),
    "component": (lambda b: open_session(b).run_component("z", {}), UsageError, 2, "component 'z'"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage(bundle: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    call, kind, code, message = USAGE[case]
    with pytest.raises(kind, match=message) as caught:
        call(bundle)
    assert caught.value.exit_code == code


def test_closed_session(bundle: Path) -> None:
    with open_session(bundle) as session:
        pass
    with pytest.raises(UsageError, match="closed"):
        session.run(tiny_bundles.feeds())
