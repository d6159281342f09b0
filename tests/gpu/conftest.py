"""Tests that need a GPU and the CUDA kernels; elsewhere they are skipped, with the reason.

`scripts/gpu_check.sh` sets FASTUNROLL_GPU_CHECK: there a reason to skip is a failure.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fastunroll.ops import cuda


def missing() -> str | None:
    if not torch.cuda.is_available():
        return "no GPU that torch sees"
    if cuda.BACKEND is None:
        return "the CUDA kernels were not built"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing()
    if reason is not None and "FASTUNROLL_GPU_CHECK" in os.environ:
        raise pytest.UsageError(reason)
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))
