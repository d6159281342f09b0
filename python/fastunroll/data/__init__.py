"""Synthetic problems, natural images and regression tables to train and test on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastunroll.data.colour import by_luminance_and_chroma
from fastunroll.data.dictionaries import learn_patch_dictionary, overcomplete_dct
from fastunroll.data.images import load_images, read_image, to_gray
from fastunroll.data.patches import denoise_image, folder_patches, remove_mean, sample_patches
from fastunroll.data.regression import RegressionTable, load_regression_table
from fastunroll.data.synthetic import SparseBatch, SparseProblem, make_sparse_problem

if TYPE_CHECKING:
    from fastunroll.data.benchmark import (
        VARIANTS,
        BenchmarkProblem,
        RecoveryScore,
        load_benchmark,
        make_benchmark,
    )

__all__ = [
    "VARIANTS",
    "BenchmarkProblem",
    "RecoveryScore",
    "RegressionTable",
    "SparseBatch",
    "SparseProblem",
    "by_luminance_and_chroma",
    "denoise_image",
    "folder_patches",
    "learn_patch_dictionary",
    "load_benchmark",
    "load_images",
    "load_regression_table",
    "make_benchmark",
    "make_sparse_problem",
    "overcomplete_dct",
    "read_image",
    "remove_mean",
    "sample_patches",
    "to_gray",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fastunroll.data import benchmark  # late: networks, which it can read, use this package

    return getattr(benchmark, name)
