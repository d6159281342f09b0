"""Numbers that describe a dictionary."""

from fastunroll.analysis.spectral import lipschitz_constant

__all__ = ["lipschitz_constant"]
