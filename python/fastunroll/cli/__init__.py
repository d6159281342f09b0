"""Command line: ``fastunroll COMMAND``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; without the extra ``cli``, say how to install it."""
    try:
        from fastunroll.cli.app import app
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed; try: pip install 'fastunroll[cli]'")
    app()
