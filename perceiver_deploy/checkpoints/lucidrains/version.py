"""What the release of perceiver-pytorch that a checkpoint was trained with says beyond its tensors.

The frequencies of `Perceiver`'s positions are computed, not stored. Up to 0.7.3 they are spaced logarithmically, from
0.7.4 on linearly, and the tensors of 0.7 have the same names in all its releases (`to_out.0`, from 0.8 on `to_out`), so
a checkpoint of 0.7 needs the `version` in its config.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from perceiver_deploy.checkpoints.fields import Kind
from perceiver_deploy.checkpoints.loaded import OWN_MODULE
from perceiver_deploy.models.positions import Bands
from perceiver_runtime.errors import CheckpointError

VERSION = Kind(
    'a release of perceiver-pytorch, such as "0.7.5"',
    lambda value: isinstance(value, str) and re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4}){1,2}", value) is not None,
)
READ = "0.7.1, 0.7.3 and later"
LINEAR, RENAMED = (0, 7, 4), (0, 8)
"""The first releases with linear frequencies, and with the newer names of layers."""
OLD_NAME = re.compile(r"\.to_out\.0\.(weight|bias)$")


def spacing(version: str | None, tensors: Iterable[str], where: str) -> Bands:
    """Spacing of the frequencies of a `Perceiver` with these tensors.

    Raises:
        CheckpointError: The version is needed and absent, contradicts the tensors, or is not read.
    """
    old = any(OLD_NAME.search(name) for name in tensors)
    if version is None:
        if old:
            raise CheckpointError(
                f'{where}: expected the "version" of perceiver-pytorch that the model was trained with ({READ} are '
                "read), it is missing; the tensors have the names of releases before 0.8, whose positions differ"
            )
        return "linear"
    release = read_version(version, where)
    if old != (release < RENAMED):
        names = "before 0.8" if old else "0.8 and later"
        raise CheckpointError(f"{where}: version: got {version}, and the tensors have the names of releases {names}")
    return "linear" if release >= LINEAR else "logarithmic"


def read_version(version: str, where: str) -> tuple[int, ...]:
    """The numbers of a version. Raises CheckpointError if its models are not read.

    0.7.0 and earlier lack layers that are read; 0.7.2 alone has frequencies up to 10 ** ln(max_freq / 2).
    """
    release = tuple(map(int, version.split(".")))
    if release < (0, 7, 1) or release == (0, 7, 2):
        raise CheckpointError(
            f"{where}: version: models of perceiver-pytorch {READ} are read, got {version}; {OWN_MODULE}"
        )
    return release
