"""The data that a bundle was made with, found again by name and checked by hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from perceiver_deploy.data.draw import DataOptions, counted, draw, made_dataset, reader_of
from perceiver_deploy.data.drawn import survey
from perceiver_deploy.data.open import open_data
from perceiver_deploy.data.source import Source
from perceiver_deploy.datasets import Dataset
from perceiver_deploy.sources.code import names_code
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source_record import read_record
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import DatasetError, UsageError
from perceiver_runtime.manifest import DataRecord


def recorded_data(bundle: Bundle, model: Model, options: DataOptions, uses: Sequence[str]) -> Dataset | None:
    """Samples of some uses as the export of a bundle drew them.

    Args:
        bundle: The bundle.
        model: Its reference.
        options: Data that the user names, if any.
        uses: Of `draw.USES`.

    Returns:
        The samples; None if the bundle was made without data of the user's, or `options` name other data.

    Raises:
        UsageError: The data are not found, or come from code that this command does not name.
        DatasetError: They have changed since the export.
    """
    record = bundle.manifest.data
    if record is None:
        return None
    source = open_data(options.data, _expected_code(options.data, record)) if options.data is not None else None
    if source is not None and source.name != record.name:
        return None
    reader = reader_of(model, source or _found(bundle, record), options.metric)
    total = counted(reader)
    numbers = {use: getattr(record, use).samples for use in ("golden", "calibration", "evaluation")}
    same_code = bool(record.code_sha256)  # then other samples are a defect of the code
    if total != record.samples:
        if source is not None and not same_code:
            return None
        raise _changed(record, f"{total:,} samples, not {record.samples:,}")
    drawn = draw(total, numbers, record.seed)
    found, tasks = survey(reader, {use: drawn[use] for use in uses})
    for use in uses:
        if found[use].sha256 != getattr(record, use).sha256:
            if source is not None and not same_code:
                return None
            raise _changed(record, f"other samples for {use}")
    return made_dataset(reader, found, tasks, options.metric, record)


def evaluation_data(bundle: Bundle, model: Model, options: DataOptions) -> Dataset:
    """The samples that a bundle is to be scored on.

    Those that its export drew; all samples of other data that the user names; or else the model's own data set.

    Raises:
        UsageError: There are none, or they are not found.
        DatasetError: They do not fit the model, have no targets, or have changed since the export.
    """
    made = recorded_data(bundle, model, options, ("evaluation",))
    if options.evaluation is not None and (made is not None or options.data is None):
        raise UsageError(
            "samples (--samples): goes with data that the bundle was not made with (--data), of which it draws so "
            "many; leave it out"
        )
    if made is None and options.data is not None:
        made = _all(model, options)
    if made is None:
        if model.dataset is None:
            raise UsageError(
                f"evaluate: expected a model with a data set of its own, {model.name} has none; give labelled samples "
                "(--data)"
            )
        return model.dataset
    if not made.scored:
        raise DatasetError(
            f"{made.name}: expected samples with targets for evaluation, got none; give targets by the name of an "
            "output, or labels"
        )
    return made


def calibration_data(bundle: Bundle, model: Model, data: object) -> Dataset | None:
    """The samples that a bundle was calibrated with; None if it was made without data of the user's.

    Raises:
        UsageError: They are not found, or come from code that `data` does not name.
        DatasetError: They have changed since the export, or `data` are others.
    """
    found = recorded_data(bundle, model, DataOptions(data), ("calibration",))
    if found is None and data is not None:
        made = bundle.manifest.data.name if bundle.manifest.data is not None else "no data of a user's"
        raise DatasetError(f"data (--data): expected what the bundle was calibrated with ({made}), got other data")
    return found


def _all(model: Model, options: DataOptions) -> Dataset:
    """Samples of data that the bundle was not made with: as many as asked for, or all."""
    source = open_data(options.data)
    reader = reader_of(model, source, options.metric)
    total = counted(reader)
    wanted = total if options.evaluation is None else options.evaluation
    if wanted > total:
        raise DatasetError(f"{source.name}: expected at least {wanted} samples, got {total}")
    numbers = {"golden": 0, "calibration": 0, "evaluation": wanted}
    drawn = draw(total, numbers, options.seed)
    found, tasks = survey(reader, {"evaluation": drawn["evaluation"]})
    return replace(made_dataset(reader, found, tasks, options.metric, None), held_out=False)


def _expected_code(data: object, record: DataRecord) -> str | None:
    """The hash that code of the recorded name must have."""
    named = isinstance(data, str) and Path(data.rpartition(":")[0]).name == record.name.rpartition(":")[0]
    return record.code_sha256 or None if named else None


def _found(bundle: Bundle, record: DataRecord) -> Source:
    """The data where the export found them, or by their name; code is never run."""
    if record.code_sha256:
        raise UsageError(
            f"data (--data): the bundle was made with samples that {record.name} (sha256 {record.code_sha256:.12}) "
            f"makes; code runs only where it is named: --data PATH/{record.name}"
        )
    places = list(dict.fromkeys(_places(bundle, record)))
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise UsageError(
            f"data (--data): expected {record.name}, which the bundle was made with, found none at "
            f"{' or '.join(map(str, places))}; name it with --data"
        )
    return open_data(found)


def _places(bundle: Bundle, record: DataRecord) -> Iterator[Path]:
    stored = read_record(bundle.path)
    if stored is not None and stored.data is not None and not names_code(stored.data):
        yield Path(stored.data)
    if Path(record.name).name == record.name:  # a manifest names no other place
        yield Path(record.name).absolute()
        yield bundle.path.resolve().parent / record.name


def _changed(record: DataRecord, got: str) -> DatasetError:
    return DatasetError(
        f"{record.name}: expected the data that the bundle was made with, got {got}; restore them, export again, or "
        "name other data with --data"
    )
