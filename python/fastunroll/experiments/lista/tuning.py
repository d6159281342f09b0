"""Search of HyperLISTA's three numbers."""

from __future__ import annotations

from functools import partial

import torch

from fastunroll.data import SparseBatch
from fastunroll.metrics import nmse_db
from fastunroll.nn import HyperLISTA, UnrolledNetwork
from fastunroll.training.search import refine, search

_N_FEW = 250
"""Samples of the first search."""


def tune(network: HyperLISTA, samples: SparseBatch, many: SparseBatch, n_evaluations: int) -> None:
    """Search in two rounds.

    The larger the threshold, the better is the typical sample, until a few in ten thousand are not
    recovered at all and rule the NMSE. So what a search on the first of ``samples`` finds is
    refined on ``many``, with a third of the evaluations.
    """
    few = SparseBatch(*(part[:_N_FEW] for part in samples))
    search(network, network.ranges, partial(nmse_on, batch=few), n_evaluations=n_evaluations)
    refine(
        network,
        network.ranges,
        partial(nmse_on, batch=many),
        n_evaluations=max(3, n_evaluations // 3),
    )


@torch.no_grad()
def nmse_on(network: UnrolledNetwork, batch: SparseBatch) -> float:
    """NMSE in dB of a network on samples."""
    return nmse_db(network(batch.measurements), batch.codes)
