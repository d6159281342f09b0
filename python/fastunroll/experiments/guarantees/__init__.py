"""Experiments on the optimisation guarantees of unrolled networks.

Source: Shah, Pradhan, Pu, Randhi, Rodrigues, Eldar, "Optimization guarantees of unfolded ISTA and
ADMM networks with smooth soft-thresholding", IEEE TSP 72, 2024 (arXiv 2309.06195).
"""

from fastunroll.experiments.guarantees.run import check, run

__all__ = ["check", "run"]
