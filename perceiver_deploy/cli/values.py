"""Types of options: numbers within their range, sizes, and names, which suggest the nearest for a wrong one."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable

import click

from perceiver_runtime.backends import BACKENDS
from perceiver_runtime.cli.options import size
from perceiver_runtime.errors import UsageError
from perceiver_runtime.suggest import did_you_mean

THREADS = click.IntRange(1)
"""The upper bound is the machine's: see `perceiver_runtime.backends.check_threads`."""


class Name(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """One of some names."""

    name = "name"

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The names, as help shows them, if they fit a line."""
        names = f"[{'|'.join(self.names)}]"
        return names if len(names) < 72 else "NAME"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name itself."""
        if value in self.names:
            return value
        near = did_you_mean(value, self.names)
        return self.fail(f"expected one of {', '.join(self.names)}, got {value!r:.40}{near}", param, ctx)


PRECISION = Name(("fp32", "fp16", "bf16", "int8", "int8-dynamic", "fp8", "int4"))
ENGINE_TARGET = Name(("jetson-orin", "jetson-thor", "rtx", "hopper"))
TARGET = Name(("cpu", "cuda", *ENGINE_TARGET.names))
"""As in the exporters' tables, which import torch; a test holds them to be the same."""
BACKEND = Name(("auto", *BACKENDS))
PEER = Name(("none", "torch", "torch-compile", "onnxruntime", "openvino"))
"""As `perceiver_deploy.peers` has them; a test holds them to be the same."""


class Finite(click.FloatRange):
    """A range that NaN and infinity are outside of, whatever its bounds."""

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Text to a number."""
        number: float = super().convert(value, param, ctx)  # type: ignore[arg-type]  # it takes text
        return number if math.isfinite(number) else self.fail(f"expected a finite number, got {value}", param, ctx)


POINTS = Finite(0.0, 100.0)


class Pixels(click.ParamType):  # type: ignore[type-arg]
    """Height and width in pixels, as 48x64."""

    name = "size"

    def convert(
        self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Text to a pair of positive numbers."""
        if isinstance(value, tuple):
            return value
        if match := re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", value):
            return int(match[1]), int(match[2])
        return self.fail(f"expected HEIGHTxWIDTH in pixels, as 48x64, got {value!r}", param, ctx)


class Batches(click.ParamType):  # type: ignore[type-arg]
    """Numbers of rows, as 1,4,16."""

    name = "numbers"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Text to different positive numbers."""
        if isinstance(value, tuple):
            return value
        if re.fullmatch(r"[1-9][0-9]{0,5}(,[1-9][0-9]{0,5})*", value):
            return tuple(dict.fromkeys(map(int, value.split(","))))
        return self.fail(f"expected numbers of at least 1, as 1 or 1,4,16, got {value!r:.40}", param, ctx)


BATCHES = Batches()


class Size(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes with its unit, as `perceiver-run` takes it: 1500MB, 1.5GB."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Text to bytes, at least one."""
        if isinstance(value, int):
            return value
        try:
            return size(value)
        except argparse.ArgumentTypeError as error:
            return self.fail(str(error), param, ctx)


def parse_dynamic(texts: Iterable[str]) -> dict[str, tuple[int | str, ...]]:
    """Shapes by input from `NAME=DIM,DIM,...`: numbers, or names of dimensions that vary. Raises UsageError."""
    found: dict[str, tuple[int | str, ...]] = {}
    for text in texts:
        name, _, shape = text.partition("=")
        sizes = shape.split(",")
        if not name or not all(size.isdigit() or size.isidentifier() for size in sizes):
            raise UsageError(f"--dynamic {text!r:.80}: expected NAME=DIM,DIM,..., as x=batch,3,height,width")
        if name in found:
            raise UsageError(f"--dynamic {text!r:.80}: {name} was given already; give each input once")
        found[name] = tuple(int(size) if size.isdigit() else size for size in sizes)
    return found


def backend_option(default: str | None, text: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """`--backend`, with the names that there are."""
    help_text = f"{text} One of {', '.join(BACKEND.names)}."
    return click.option("--backend", default=default, show_default=default is not None, type=BACKEND, help=help_text)
