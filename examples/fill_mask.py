"""Hide a part of a text and let a masked language model fill it in.

perceiver-export export deepmind/language-perceiver -o language
python examples/fill_mask.py language "Paris is the capital of France." " capital"
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from perceiver_runtime import open_session
from perceiver_runtime.processing.fill_mask import fill_mask, hide


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what the model puts in the place of the hidden part, and how sure it is of each byte."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("text", nargs="?", default="This is a sentence where some words are missing.")
    parser.add_argument("part", nargs="?", default=" missing")
    given = parser.parse_args(arguments)
    with open_session(given.bundle) as session:
        if not session.manifest.source.pretrained:
            print("RANDOM WEIGHTS: this bundle was exported without a checkpoint; the answer means nothing")
        result = fill_mask(session, hide(given.text, given.part))
    print(f"hidden: {given.part!r}")
    print(f"filled: {result.filled!r}, bytes with probability {' '.join(f'{p:.2f}' for p in result.probabilities)}")
    print(f"text:   {result.text}")


if __name__ == "__main__":
    main()
