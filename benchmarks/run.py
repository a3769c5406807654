"""Run the benchmarks, one after the other, each in a process of its own; then fill the tables of the documents.

    python benchmarks/run.py DIRECTORY [NAME ...] [--quick]

NAME is a name of the list that `--help` prints; none runs all. `--quick` takes few rounds: it shows that the scripts
work, and its numbers are not to be published. DIRECTORY keeps bundles and peers' graphs. A script that fails does not
stop the others; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BENCHMARKS = Path(__file__).parent


@dataclass(frozen=True)
class Question:
    """A script with its arguments: `{directory}` is replaced; `quick` are arguments for few rounds."""

    arguments: tuple[str, ...]
    quick: tuple[str, ...] = ()


def _released(name: str, script: str = "peers.py") -> Question:
    return Question((script, name, "{directory}"), ("--rounds", "2"))


QUESTIONS: Mapping[str, Question] = {
    "peers-language": _released("language-perceiver"),
    "peers-conv": _released("vision-perceiver-conv"),
    "peers-fourier": _released("vision-perceiver-fourier"),
    "peers-flow": Question(("peers_flow.py", "{directory}", "--rounds", "10"), ("--rounds", "1")),
    "overhead": Question(("overhead.py", "{directory}"), ("--rounds", "5")),
    "looping": Question(("looping.py", "{directory}"), ("--rounds", "2")),
    "multimodal-decode": Question(("multimodal_decode.py", "{directory}")),
    "cold-start": Question(("cold_start.py", "{directory}"), ("--rounds", "1")),
    "threads": Question(("threads.py", "{directory}"), ("--rounds", "2")),
    "threads-limit": Question(("threads.py", "{directory}", "--limit"), ("--rounds", "2")),
    "memory": Question(("memory.py", "{directory}")),
    "integer-forms": Question(("integer_forms.py",)),
    "integers": Question(("integers.py",)),
    "convolution-forms": Question(("convolution_forms.py",)),
    "attention-form": Question(("attention_form.py",)),
    "calibration-memory": Question(("calibration_memory.py",)),
    "noise": Question(("noise.py", "{directory}"), ("--rounds", "10", "--repetitions", "3")),
}
"""One entry for each record in benchmarks/results. What fills other documents is listed in README.md."""


def main() -> None:
    names = "\n".join(f"  {name}: {' '.join(question.arguments)}" for name, question in QUESTIONS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{names}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(QUESTIONS)):
        parser.error(f"expected names of {', '.join(QUESTIONS)}, got {', '.join(unknown)}")
    given.directory.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in given.names or QUESTIONS:
        question = QUESTIONS[name]
        script, *more = (each.format(directory=given.directory) for each in question.arguments)
        print(f"{name}:", flush=True)
        command = [sys.executable, str(BENCHMARKS / script), *more, *(question.quick if given.quick else ())]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    subprocess.run([sys.executable, str(BENCHMARKS / "tables.py")], check=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
