"""Support selection: the largest entries of a layer skip its shrinkage."""

from __future__ import annotations

from dataclasses import dataclass

from fastunroll._checks import check_number, check_positive_int


@dataclass(frozen=True)
class SupportSelection:
    """How many entries of u skip the shrinkage in each layer.

    In layer k = 0, 1, ... these are the largest p_k % of |u| that also exceed the threshold, with
    p_k = min(percent_per_layer (k + 1), max_percent). The choice carries no gradient. Source: Chen,
    Liu, Wang, Yin, "Theoretical linear convergence of unfolded ISTA and its practical weights and
    thresholds", 2018, section 3.2.

    Attributes
    ----------
    percent_per_layer : float
        What p_k grows by from layer to layer, in percent of the atoms.
    max_percent : float
        Largest p_k, at most 100.

    Raises
    ------
    TypeError, ValueError
        With the name of the attribute that does not fit.
    """

    percent_per_layer: float = 1.2
    max_percent: float = 13.0

    def __post_init__(self) -> None:
        """Check the attributes."""
        check_number("percent_per_layer", self.percent_per_layer, minimum=0.0)
        if check_number("max_percent", self.max_percent, minimum=0.0) > 100:
            raise ValueError(f"max_percent must be at most 100, got {self.max_percent:g}")

    def counts(self, n_atoms: int, n_layers: int) -> tuple[int, ...]:
        """Number of entries in each layer: p_k % of ``n_atoms``, to the nearest rank, halves up.

        Variants that rank by an interpolated percentile differ from it by at most one entry.
        """
        check_positive_int("n_atoms", n_atoms)
        check_positive_int("n_layers", n_layers)
        percents = (
            min(self.percent_per_layer * (k + 1), self.max_percent) for k in range(n_layers)
        )
        return tuple(int(percent * n_atoms / 100 + 0.5) for percent in percents)
