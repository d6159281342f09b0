"""Import of the packages that only an extra installs."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_optional(module: str, extra: str = "cli") -> ModuleType:
    """Import a module of an optional dependency.

    Raises
    ------
    ImportError
        If it is not installed; the message names the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{module.partition('.')[0]} is not installed; "
            f"install it with: pip install 'fastunroll[{extra}]'"
        ) from error
