"""Numbers that follow from the results: those that targets and claims are about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastunroll.experiments.pudle.denoising import DEC, LEAST_SQUARES
from fastunroll.experiments.pudle.local import line

Results = Mapping[str, Any]


def best(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Lambda, or threshold, with the highest PSNR by the paper's definition."""
    return max(rows, key=lambda value: float(rows[value]["paper"]))


def summary(results: Results) -> dict[str, Any]:
    """Rates of Figs. 2 and 3, distances of Fig. 4, and differences of Table 1."""
    found, table = results["gradients"], results["denoising"]
    errors = found["gradients"]
    rates = {name: line(found["layers"], row)[0] for name, row in errors["lasso"].items()}
    ends = {
        depth: {name: row["error"] for name, row in rows.items()}
        for depth, rows in results["trainings"].items()
    }
    gains = [
        row["paper"] - table[DEC][value]["paper"] for value, row in table[LEAST_SQUARES].items()
    ]
    return {
        "rate of the codes": line(found["layers"], found["codes"])[0],
        "rates to the lasso gradient": rates,
        "ae-lasso's rate over dec's": rates["ae-lasso"] / rates["dec"],
        "ae-ls's distance over the others'": max(
            row["ae-ls"] / min(row["dec"], row["ae-lasso"]) for row in ends.values()
        ),
        "least gain of g_ae-ls (dB)": min(gains),
        "best g_ae-ls (dB)": table[LEAST_SQUARES][best(table[LEAST_SQUARES])]["paper"],
        "processor seconds": {
            sparsity: sum(row["processor seconds"] for row in rows.values())
            for sparsity, rows in results["recovery"].items()
        },
    }
