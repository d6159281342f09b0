"""Names of the networks and problems as figures and tables show them, and published errors."""

from __future__ import annotations

TITLES: dict[str, str] = {
    "lista": "LISTA",
    "lista-tied": "LISTA, tied",
    "lista-ss": "LISTA-SS",
    "lista-cp": "LISTA-CP",
    "lista-cpss": "LISTA-CPSS",
    "lista-mcp": "LISTA-CP, MCP",
    "lista-scad": "LISTA-CP, SCAD",
    "tilista": "TiLISTA",
    "tilista-ss": "TiLISTA, SS",
    "alista": "ALISTA",
    "alista-ss": "ALISTA, SS",
    "step-lista": "Step-LISTA",
    "glista": "GLISTA",
    "liht": "LIHT",
    "liht-cp": "LIHT-CP",
    "admm-csnet": "ADMM-CSNet",
    "tista": "TISTA",
    "lamp": "LAMP",
    "na-alista": "NA-ALISTA",
    "hyperlista": "HyperLISTA",
    "hyperlista-plain": "HyperLISTA, plain",
}
"""Networks by their name in `fastunroll.nn.catalogue`; SS is support selection."""

PROBLEMS: dict[str, str] = {
    "noiseless": "no noise",
    "snr40": "SNR 40 dB",
    "snr30": "SNR 30 dB",
    "snr20": "SNR 20 dB",
    "kappa5": "condition number 5",
    "kappa30": "condition number 30",
    "kappa50": "condition number 50",
}

PUBLISHED: dict[str, dict[str, str]] = {
    "noiseless": {
        "ISTA": "-5.7 (code)",
        "FISTA": "-7.6 (code)",
        "lista-tied": "-36.4 (figure)",
        "lista": "-31.7 (figure)",
        "lista-cp": "-34.7 (figure)",
        "lista-cpss": "-61.4 (figure)",
        "tilista": "-45.8 (figure)",
        "tilista-ss": "-68 (figure)",
        "alista": "-45.4 (figure)",
        "alista-ss": "-70 to -78.5 (figures)",
        "lamp": "-48.8 (figure)",
        "hyperlista": "-84.0 (code)",
    },
    "snr40": {
        "ISTA": "-5.8 (log)",
        "FISTA": "-7.6 (log)",
        "lista-cp": "-33.0 (figure)",
        "lista-cpss": "-44.0 (figure)",
        "tilista": "-38.6 (figure)",
        "tilista-ss": "-43.5 (figure)",
        "alista": "-35.5 (figure)",
        "alista-ss": "-39.07 (log) to -42 (figure)",
        "na-alista": "-42.19 (log)",
        "tista": "-42.81 (code)",
        "hyperlista": "-42.7 (code)",
        "least squares on the true support": "-46.0 (code)",
    },
    "snr20": {
        "ISTA": "-5.7 (log)",
        "FISTA": "-7.6 (log)",
        "lista-cpss": "-20 (figure)",
        "alista-ss": "-21.08 (log)",
        "na-alista": "-21.64 (log)",
        "hyperlista": "-20.2 (code)",
        "least squares on the true support": "-25.8 (code)",
    },
}
"""NMSE in dB after 16 layers, by problem and network, as others report it.

Read off a figure, within 1 to 2 dB; from published logs; or from running published code.
"""


def title(name: str) -> str:
    """How a network or a method is shown."""
    return TITLES.get(name, name)
