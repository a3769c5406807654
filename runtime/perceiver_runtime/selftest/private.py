"""Names and paths of this machine are taken out of a report: it is made to be passed on."""

from __future__ import annotations

import getpass
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("USER", "LOGNAME", "USERNAME", "SUDO_USER", "HOSTNAME", "HOST")
MIN_NAME = 3
_PATH = re.compile(r"(?<![\w./:<>*-])~?/(?!(?:sys|proc|dev)/)[\w.+~-]+(?:/[\w.+~*@-]*)+")
"""An absolute path of at least two parts. Those of the kernel are the same everywhere and stay."""


class Scrubber:
    """Replaces paths by `<path>`, and the names of user and host by `<name>`, in texts of a report.

    Identifiers, which are texts without a blank or a slash, stay: no field for them holds a name of user or host.
    """

    def __init__(self, bundle: Path) -> None:
        places = sorted(set(_places(bundle)) - {"/", "."}, key=len, reverse=True)
        names = sorted({name for name in _names() if len(name) >= MIN_NAME}, key=len, reverse=True)
        self._places = re.compile("|".join(map(re.escape, places)))
        self._names = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names)) or '(?!)'})(?!\w)")

    def clean(self, value: Any, *, paths: bool = True) -> Any:
        """JSON-ready data without them; with `paths=False`, texts that only look like a path stay (names of layers)."""
        if isinstance(value, dict):
            return {key: self.clean(item, paths=paths) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.clean(item, paths=paths) for item in value]
        return self._text(value, paths) if isinstance(value, str) and re.search(r"[\s/]", value) else value

    def _text(self, text: str, paths: bool) -> str:
        found = self._places.sub("<path>", text)
        return self._names.sub("<name>", _PATH.sub("<path>", found) if paths else found)


def _places(bundle: Path) -> Iterator[str]:
    for place in (bundle.absolute(), Path(os.path.realpath(bundle))):
        yield str(place)
        yield from map(str, place.parents)
    if len(bundle.parts) > 1:
        yield str(bundle)
    yield from filter(None, (os.environ.get("HOME"), os.environ.get("TMPDIR")))
    yield from (str(Path.cwd()), tempfile.gettempdir(), sys.prefix, str(Path("~").expanduser()))


def _names() -> Iterator[str]:
    yield from filter(None, map(os.environ.get, NAMES))
    yield from (node := platform.node(), node.partition(".")[0])
    try:
        yield getpass.getuser()
    except (KeyError, OSError, ImportError):  # a service user without an entry, whose type depends on the version
        return
