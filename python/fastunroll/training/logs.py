"""What a training reports: a CSV file, TensorBoard and a progress bar."""

from __future__ import annotations

import csv
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from fastunroll.io import atomic_write


class Record(NamedTuple):
    """One validation of a training, a row of its log."""

    stage: str
    """Name of the stage."""
    stage_step: int
    """Steps of this stage so far."""
    step: int
    """Steps of all stages so far."""
    loss: float | None
    """Loss of this step's batch; None before the first step of a stage."""
    validation: float | None
    """What ``validate`` returned; None without one."""
    best: float | None
    """Lowest validation of this stage."""
    seconds: float
    """Training time so far, over all parts of an interrupted training."""


class Log:
    """The records of a training, kept in memory and, given a directory, in ``log.csv``.

    Parameters
    ----------
    directory : Path, optional
        Where to write; nothing is written without it.
    validation_name : str
        TensorBoard's name for the validation.
    tensorboard : bool
        Write TensorBoard events to ``directory/tensorboard``, too.
    n_records : int
        Records to keep from an earlier part of this training; later ones are dropped.

    Raises
    ------
    ValueError
        If ``log.csv`` holds fewer records than that.
    """

    def __init__(
        self, directory: Path | None, validation_name: str, *, tensorboard: bool, n_records: int
    ) -> None:
        self.records: list[Record] = []
        self._validation_name = validation_name
        self._file: TextIO | None = None
        self._events: Any = None
        if directory is None:
            return
        path = directory / "log.csv"
        self.records = _read(path)[:n_records] if n_records else []
        if len(self.records) < n_records:
            raise ValueError(
                f"{path} must hold the {n_records} records that its checkpoint counts, "
                f"found {len(self.records)}"
            )
        with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([Record._fields, *self.records])
        self._file = path.open("a", newline="")
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            purge = self.records[-1].step + 1 if self.records else None
            self._events = SummaryWriter(str(directory / "tensorboard"), purge_step=purge)

    def append(self, record: Record) -> None:
        """Add a record."""
        self.records.append(record)
        if self._file:
            csv.writer(self._file).writerow(record)
            self._file.flush()
        # The start of a stage is left out: it shares its step with the end of the stage before.
        if self._events and record.loss is not None:
            self._events.add_scalar("loss", record.loss, record.step)
            if record.validation is not None:
                self._events.add_scalar(self._validation_name, record.validation, record.step)

    def sync(self) -> None:
        """Bring every record to the disk."""
        if self._file:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files."""
        if self._file:
            self._file.close()
        if self._events:
            self._events.close()


def _read(path: Path) -> list[Record]:
    """Records of a log file; a last line that was cut short is left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["seconds"]]
    return [
        Record(
            row["stage"],
            int(row["stage_step"]),
            int(row["step"]),
            _number(row["loss"]),
            _number(row["validation"]),
            _number(row["best"]),
            float(row["seconds"]),
        )
        for row in rows
    ]


def _number(text: str) -> float | None:
    return float(text) if text else None


class ProgressBar:
    """Progress of the current stage, on a terminal where ``rich`` is installed; else quiet."""

    def __init__(self, validation_name: str, *, enabled: bool) -> None:
        self._bar: Any = None
        self._name = validation_name
        if enabled and sys.stderr.isatty() and find_spec("rich"):
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}", markup=False),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )

    def start(self) -> None:
        """Take the terminal."""
        if self._bar:
            self._bar.start()

    def begin(self, stage: str, completed: int, total: int) -> None:
        """Show a new stage."""
        if self._bar:
            self._task = self._bar.add_task(stage, completed=completed, total=total, numbers="")

    def show(self, completed: int, loss: float, last: Record) -> None:
        """Show a step: its loss, and the last validation."""
        if self._bar:
            numbers = f"loss {loss:.4g}"
            if last.validation is not None:
                numbers += f"  {self._name} {last.validation:.4g}  best {last.best:.4g}"
            self._bar.update(self._task, completed=completed, numbers=numbers)

    def stop(self) -> None:
        """Leave the last state on the terminal."""
        if self._bar:
            self._bar.stop()
