"""Synthetic problems, natural images and regression tables to train and test on."""

from fastunroll.data.colour import by_luminance_and_chroma
from fastunroll.data.dictionaries import learn_patch_dictionary, overcomplete_dct
from fastunroll.data.images import load_images, read_image, to_gray
from fastunroll.data.patches import denoise_image, folder_patches, remove_mean, sample_patches
from fastunroll.data.regression import RegressionTable, load_regression_table
from fastunroll.data.synthetic import SparseBatch, SparseProblem, make_sparse_problem

__all__ = [
    "RegressionTable",
    "SparseBatch",
    "SparseProblem",
    "by_luminance_and_chroma",
    "denoise_image",
    "folder_patches",
    "learn_patch_dictionary",
    "load_images",
    "load_regression_table",
    "make_sparse_problem",
    "overcomplete_dct",
    "read_image",
    "remove_mean",
    "sample_patches",
    "to_gray",
]
