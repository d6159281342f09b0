"""Finished parts of an experiment, kept as JSON so that they need not be computed again."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fastunroll
from fastunroll.io import atomic_write

_PACKAGES = ("torch", "numpy", "scikit-learn", "scikit-image")


@dataclass(frozen=True)
class Store:
    """A folder with one JSON file per finished part.

    Attributes
    ----------
    folder : Path
    settings : dict
        What decides the results, in terms of JSON. A part counts as finished if it was computed
        with the same settings.
    """

    folder: Path
    settings: Mapping[str, Any]

    def part(
        self, name: str, compute: Callable[[], Mapping[str, Any]], files: Sequence[Path] = ()
    ) -> dict[str, Any]:
        """Result of a part, computed unless it and the ``files`` it writes are there.

        The folder that `run` names goes once the part is stored.
        """
        path = self.folder / f"{name}.json"
        if (known := self._read(path)) is not None and all(file.is_file() for file in files):
            return known
        # Through JSON and back, so that a result does not depend on whether it was computed before.
        result: dict[str, Any] = json.loads(json.dumps(compute()))
        write_text(path, json.dumps({"settings": self.settings, "result": result}, indent=1))
        shutil.rmtree(self.run(name), ignore_errors=True)
        return result

    def run(self, name: str) -> Path:
        """Folder for the unfinished training of a part, another one for other settings."""
        text = json.dumps(self.settings, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return self.folder.parent / "runs" / f"{name}-{digest[:12]}"

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        same = found.get("settings") == json.loads(json.dumps(self.settings))
        return found["result"] if same else None


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table as CSV, whole or not at all."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def machine_facts() -> dict[str, str]:
    """Machine, versions and date, for the report."""
    build = fastunroll.build_info()
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "torch threads": str(build["threads"]),
        "instruction set": str(build["isa"]),
        "system": platform.platform(terse=True),
        "Python": platform.python_version(),
        "fastunroll": fastunroll.__version__,
        **{name: version(name) for name in _PACKAGES},
    }


def _memory() -> str:
    """Memory of the machine, as far as the system tells it."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return "unknown"
    return f"{size / 2**30:.0f} GiB"


def _processor() -> str:
    """Model name of the processor, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
