"""``fastunroll info``: what is installed and what it runs on."""

from __future__ import annotations

import platform
from importlib.metadata import version

import fastunroll
from fastunroll.cli.common import print_table


def info() -> None:
    """Show versions, the instruction set in use and the number of threads.

    ```
    fastunroll info
    ```
    """
    print_table(
        f"fastunroll {fastunroll.__version__}",
        {
            **fastunroll.build_info(),
            "python": platform.python_version(),
            "numpy": version("numpy"),
            "system": platform.platform(),
        },
    )
