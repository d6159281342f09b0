"""Networks by name."""

from __future__ import annotations

import pytest
import torch
from test_layerwise import PROBLEM, make_problem

from fastunroll.nn import LISTACP, SupportSelection
from fastunroll.nn.catalogue import catalogue, create


@pytest.mark.parametrize("name", catalogue)
def test_every_network_runs_the_first_layers(name: str) -> None:
    model = create(name, PROBLEM.training, 4)
    assert model.n_layers == 4
    b = PROBLEM.validation.measurements[:5]
    codes = model.unroll(b, n_layers=2).codes
    assert codes.shape == (5, 40)
    iterates = model.unroll(b, iterates=True).iterates
    torch.testing.assert_close(iterates[2], codes)
    assert torch.equal(model.dictionary, PROBLEM.dictionary)


def test_names_set_options() -> None:
    assert create("alista-ss", PROBLEM.dictionary).support_selection == SupportSelection()
    assert create("alista", PROBLEM.dictionary).support_selection is None
    assert create("lista-tied", PROBLEM.dictionary, 2).tied
    noisy = make_problem(variant="snr20")
    assert create("tista", noisy.training, 2).noise_std > 0
    assert isinstance(create("lista-cpss", PROBLEM.dictionary, 2), LISTACP)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"must be one of lista, .*alista-ss.*; got 'alsita'"):
        create("alsita", PROBLEM.dictionary)
