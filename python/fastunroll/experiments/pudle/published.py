"""Numbers that Tolooshams and Ba, and Simon and Elad, report or whose code gives them."""

from __future__ import annotations

RECOVERY: dict[str, dict[str, float]] = {
    "10": {"plain": 8.7e-3, "decay": 5.2e-6, "hard": 2.9e-6, "NOODL": 3.9e-3},
    "20": {"plain": 1.4e-2, "decay": 5.7e-6, "hard": 4.8e-7, "NOODL": 1.8e-4},
    "40": {"plain": 2.6e-2, "decay": 4.0e-5, "hard": 9.8e-6, "NOODL": 2.3e-6},
}
"""Relative error of D after 1000 updates, by sparsity and method (Figs. 5 and 6)."""

TRAININGS: dict[str, dict[str, float]] = {
    "25": {"dec": 2.424, "ae-lasso": 1.675, "ae-ls": 0.8023},
    "100": {"dec": 1.270, "ae-lasso": 1.269, "ae-ls": 0.2512},
}
"""Final ||D - D~||_F, by layers and gradient (Fig. 4c, d)."""

DENOISING: dict[str, dict[str, float]] = {
    "g_ae-ls": {"0.08": 24.80, "0.12": 25.48, "0.16": 25.68, "0.2": 25.51},
    "g_dec": {"0.08": 24.31, "0.12": 24.73, "0.16": 25.26, "0.2": 24.91},
    "hard threshold": {"0.02": 22.87, "0.05": 25.40, "0.08": 24.71, "0.1": 24.13},
}
"""PSNR in dB of 129 x 129 crops, peak = largest pixel of each crop, after 250 epochs (Table 1)."""

EPOCHS = 250
"""Epochs behind `DENOISING`."""

CSCNET = 29.10
"""PSNR in dB of CSCNet on the 68 whole images of BSD68, sigma = 25, peak 1."""
