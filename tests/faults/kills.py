"""Strike at every change of the disk that the product makes, and count what is left half-written.

    python tests/faults/kills.py [--json FILE] [WRITER ...]

Each writer runs in a forked process: killed by SIGKILL before each change, killed within each write, with a disk that
is full from a change on, and with a write or a sync that fails. After each, all visible files must be, byte for byte,
as before or as after a whole write. After an error no hidden file may be left; after a kill the next write must
succeed, and leave none. The exit code is 1 if anything is half-written or left behind, or an error is neither typed nor
the disk's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from faults.crashes import FAULTS, REFUSED, STRIKES, UNTYPED, Fault, changes, strike  # noqa: E402
from faults.writers import Writer, copied, writers  # noqa: E402

Content = dict[str, bytes]


@dataclass
class Found:
    """What the faults left of one writer.

    Attributes:
        faults: Faults that struck, by kind.
        before, after: How often everything was as before, or as after.
        unfinished: How often a directory was without the file that is written last.
        half: Faults after which something was neither.
        leftovers: Faults after which something hidden was left for good.
        untyped: Errors that are none of the disk, and none of the product's.
    """

    faults: Counter[str] = field(default_factory=Counter)
    before: int = 0
    after: int = 0
    unfinished: int = 0
    half: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    untyped: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """Points at which the process was killed."""
        return sum(count for fault, count in self.faults.items() if fault.startswith("killed"))

    @property
    def errors(self) -> int:
        """Points at which the disk failed."""
        return self.faults.total() - self.kills


class Trial:
    """One writer in a folder of its own."""

    def __init__(self, writer: Writer, folder: Path) -> None:
        self.writer, self.folder = writer, folder
        self.template = folder / "before"
        self.template.mkdir()
        writer.before(self.template)
        whole = copied(self.template, folder / "after")
        writer.write(whole)
        self.states = {"before": visible(self.template), "after": visible(whole)}
        shutil.rmtree(whole)
        place = self._place()
        self.changes = changes(lambda: writer.write(place))
        shutil.rmtree(place)

    def points(self, count: int | None = None) -> list[tuple[Fault, int]]:
        """All faults that can strike, or so many of them."""
        found = [(fault, n) for fault in FAULTS for n, name in enumerate(self.changes) if name in STRIKES[fault]]
        return found if count is None else found[:: max(1, len(found) // count)]

    def strike(self, fault: Fault, at: int, found: Found) -> None:
        """Let one fault strike, and look at what is left."""
        place = self._place()
        code = strike(lambda: self.writer.write(place), fault, at)
        what = f"{fault} at change {at}, {self.changes[at]}"
        found.faults[fault] += 1
        if code not in ((-9,) if fault.startswith("killed") else (0, REFUSED)):
            found.untyped.append(f"{what}: exit code {code}")
        if code == UNTYPED:
            return
        self.writer.settle(place)
        state = self._state(place)
        if state is None:
            found.half.append(what)
        else:
            setattr(found, state, getattr(found, state) + 1)
        if fault.startswith("killed"):
            self.writer.write(place)
            if state == "before" and visible(place) != self.states["after"]:
                found.half.append(f"{what}: the next write")
        if hidden(place):
            found.leftovers.append(f"{what}: {hidden(place)}")
        shutil.rmtree(place)

    def _place(self) -> Path:
        return copied(self.template, self.folder / "place")

    def _state(self, place: Path) -> str | None:
        content = visible(place)
        found = next((name for name, state in self.states.items() if content == state), None)
        if found is None and self.writer.last and self.writer.last not in content:
            return "unfinished"
        if found is None and all(content.get(name) in self._either(name) for name in self._names(content)):
            return "after" if self._artefacts_whole(content) else None
        return found

    def _names(self, content: Content) -> set[str]:
        return {*content, *self.states["before"], *self.states["after"]}

    def _either(self, name: str) -> tuple[bytes | None, ...]:
        return tuple(state.get(name) for state in self.states.values())

    def _artefacts_whole(self, content: Content) -> bool:
        """Whether each artefact of several, a file or directory at the top, is as before or as after."""
        tops = {name.split("/")[0] for name in self._names(content)}
        return all(any(part(content, top) == part(state, top) for state in self.states.values()) for top in tops)


def part(content: Content, top: str) -> Content:
    """What belongs to one file or directory at the top."""
    return {name: data for name, data in content.items() if name.split("/")[0] == top}


def visible(folder: Path) -> Content:
    """All files by their path, without hidden ones and those in hidden folders."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        path.as_posix(): _content(folder / path)
        for path in paths
        if not any(name.startswith(".") for name in path.parts)
    }


def _content(path: Path) -> bytes:
    """The bytes; those of safetensors with a header in order, which the library writes in any."""
    data = path.read_bytes()
    if path.suffix != ".safetensors":
        return data
    end = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:] if len(data) >= end else data


def hidden(folder: Path) -> list[str]:
    """Names of what is hidden in a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(".*"))


def trial(writer: Writer, count: int | None = None) -> Found:
    """Let every fault strike at one writer, or so many."""
    found = Found()
    with tempfile.TemporaryDirectory() as folder:
        made = Trial(writer, Path(folder))
        for fault, at in made.points(count):
            made.strike(fault, at, found)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = writers()
    parser.add_argument("writers", nargs="*", default=list(known), metavar="WRITER", help=", ".join(known))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["PERCEIVER_NO_CACHE"] = "1"
    print(
        "| Written | Killed at | Disk fails at | As before | As after | Unfinished | Half-written |\n|---|" + "---|" * 6
    )
    total: dict[str, Found] = {}
    for name in given.writers:
        found = total[name] = trial(known[name])
        numbers = (found.kills, found.errors, found.before, found.after, found.unfinished, len(found.half))
        print(f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} |", flush=True)
        for each in (*found.half, *found.leftovers, *found.untyped):
            print(f"  {each}", file=sys.stderr, flush=True)
    sums = [sum(getattr(found, name) for found in total.values()) for name in ("kills", "errors")]
    sums += [sum(getattr(found, name) for found in total.values()) for name in ("before", "after", "unfinished")]
    sums.append(sum(len(found.half) for found in total.values()))
    print(f"| **all** | {' | '.join(f'{number:,}' for number in sums)} |")
    if given.json:
        given.json.write_text(json.dumps({name: vars(found) for name, found in total.items()}, indent=1) + "\n")
    return int(any(found.half or found.leftovers or found.untyped for found in total.values()))


if __name__ == "__main__":
    sys.exit(main())
