"""Mask a part of a text and fill it in with a masked language model.

python examples/fill_mask.py                                       # a small model with random weights
python examples/fill_mask.py --checkpoint deepmind/language-perceiver "Paris is the capital of France." " capital"
python examples/fill_mask.py --bundle language                     # a bundle of `perceiver-export export`
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bundles import add_arguments, opened

from perceiver_runtime.processing.fill_mask import fill_mask, hide


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the filled text and the probability of each byte."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("text", nargs="?", default="This is a sentence where some words are missing.")
    parser.add_argument("part", nargs="?", default=" missing")
    given = parser.parse_args(arguments)
    with opened(given, "language-perceiver") as session:
        result = fill_mask(session, hide(given.text, given.part))
    print(f"hidden: {given.part!r}")
    print(f"filled: {result.filled!r}, bytes with probability {' '.join(f'{p:.2f}' for p in result.probabilities)}")
    print(f"text:   {result.text}")


if __name__ == "__main__":
    main()
