"""The figures released with AutoScale, as the tests read them."""

import json
from pathlib import Path

import numpy as np

from autoscale_ds.mixture import DomainWeights, RunTable

RUNS = Path(__file__).parent.parent / "data" / "runs"
FIGURES = json.loads((RUNS / "autoscale_published.json").read_text(encoding="utf-8"))
DOMAINS = FIGURES["domains"]
PPL = {
    row: np.array(values)
    for row, values in zip(
        FIGURES["ddo_1.2B"]["perplexity"]["rows"], FIGURES["ddo_1.2B"]["perplexity"]["values"], strict=True
    )
}


def optimum(scale: str) -> DomainWeights:
    return DomainWeights.normalised(dict(zip(DOMAINS, FIGURES["ddo_weights_uniform_units"][scale], strict=True)))


def ddo_table(low: float = 0.2, high: float = 3.0) -> RunTable:
    """The 15 published runs as rows of a run table: a perturbation changes one domain's tokens and the total."""
    weights, tokens = [], []
    for row in PPL:
        amounts = np.full(7, 1.2e9 / 7)
        if row != "base":
            kind, domain = row.split("/")
            amounts[DOMAINS.index(domain)] *= low if kind == "low" else high
        tokens.append(amounts.sum())
        weights.append(amounts / amounts.sum())
    return RunTable(
        runs=tuple(PPL),
        domains=tuple(DOMAINS),
        targets=tuple(DOMAINS),
        weights=np.array(weights),
        tokens=np.array(tokens),
        parameters=np.full(15, 774e6),
        losses=np.log(np.stack(list(PPL.values()))),
    )
