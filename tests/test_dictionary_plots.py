"""Pictures of dictionaries and images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_cli_dictionary import smooth
from torch.nn.functional import normalize

from fastunroll.dictionary.mosaic import mosaic, usage_of
from fastunroll.experiments.dictionary_plots import image_row, matched_atoms


class TestMosaic:
    def test_gray_atoms_are_sorted_by_usage(self):
        atoms = torch.zeros(4, 3)
        atoms[0, 0], atoms[1, 1], atoms[:, 2] = 2.0, -3.0, 1.0
        pixels = mosaic(atoms, usage_of(torch.tensor([[0.0, -2.0, 1.0], [0.5, 0.0, 1.0]])))
        assert pixels.shape == (7, 7)
        np.testing.assert_array_equal(pixels[1:3, 1:3], [[128, 0], [128, 128]])  # used most
        np.testing.assert_array_equal(pixels[1:3, 4:6], 255)
        np.testing.assert_array_equal(pixels[4:6, 1:3], [[255, 128], [128, 128]])
        np.testing.assert_array_equal(pixels[0], 255)

    def test_colour_atoms(self):
        atoms = torch.zeros(12, 1)
        atoms[5] = 1.0  # blue of the second pixel
        pixels = mosaic(atoms)
        assert pixels.shape == (4, 4, 3)
        np.testing.assert_array_equal(pixels[1, 2], [128, 128, 255])

    def test_other_atoms_are_rows(self):
        assert mosaic(torch.eye(5)).shape == (5, 5)
        np.testing.assert_array_equal(mosaic(torch.eye(5)), 128 + 127 * np.eye(5))

    def test_wrong_usage(self):
        with pytest.raises(ValueError, match="usage must have shape"):
            mosaic(torch.eye(4), torch.ones(3))


def test_matched_atoms_show_the_agreement():
    target = normalize(torch.randn(16, 9, generator=torch.Generator().manual_seed(0)), dim=0)
    learned = -target[:, torch.randperm(9, generator=torch.Generator().manual_seed(1))]
    figure = matched_atoms(learned, target)
    left, middle, right = figure.axes
    np.testing.assert_array_equal(left.images[0].get_array(), middle.images[0].get_array())
    np.testing.assert_allclose(right.lines[0].get_ydata(), 1, rtol=1e-6)


def test_images_stand_in_a_row():
    figure = image_row({"one": smooth(), "two": smooth() + 1})
    assert [axes.get_title() for axes in figure.axes] == ["one", "two"]
    assert figure.axes[1].images[0].get_array().max() == 1
