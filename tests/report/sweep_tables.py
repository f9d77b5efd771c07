"""Sweep folders whose optimum is known in closed form.

The mean loss is ``V (sum_i (x_i + a_i)^-b + C)`` in multiples x of the base run's tokens by domain, as DDO has it. With
one b and a uniform base, the optimum makes all ``x_i + a_i`` equal.
"""

import json

import numpy as np
import pyarrow
import pyarrow.parquet

from autoscale_ds.mixture import DomainWeights
from autoscale_ds.mixture.design import ddo_plan

DOMAINS = ("books", "code", "web")
EXPONENT = 1.5
# By scale, tokens of the base run: the offsets a_i, and the base run's mean loss V.
OFFSETS = {1e6: np.array([2.6, 3.0, 3.4]), 4e6: np.array([2.7, 3.1, 3.2])}
BASE_LOSS = {1e6: 4.0, 4e6: 3.5}
PARAMETERS = 2e6


def optimum(scale):
    """The best weights at the base budget: x_i = (3 + sum a) / 3 - a_i, and a third of it is the weight."""
    multiples = (3 + OFFSETS[scale].sum()) / 3 - OFFSETS[scale]
    return dict(zip(DOMAINS, multiples / 3, strict=True))


def losses(multiples, scale):
    """Loss of each target from multiples of the base tokens by domain; their mean is the formula above."""
    gain = ((multiples + OFFSETS[scale]) ** -EXPONENT - (1 + OFFSETS[scale]) ** -EXPONENT).sum()
    return BASE_LOSS[scale] * (1 + gain) + np.array([0.1, 0.0, -0.1])


def write_sweep(folder, *, scales=(1e6, 4e6), seeds=(0, 1, 2), noise=1e-4, target=64e6, extra_seeds=(), points=False):
    """Write plan.json and runs.parquet of a DDO sweep."""
    folder.mkdir(parents=True)
    rows, planned = [], []
    base = DomainWeights.uniform(list(DOMAINS))
    for scale in scales:
        for design in ddo_plan(base, scale):
            name = f"{scale / 1e6:g}M/{design.run}"
            for seed in sorted({*seeds, *(extra_seeds if design.run == "base" else ())}):
                rng = np.random.default_rng([seed, int(scale), len(rows)])
                shared = 10 * noise * np.random.default_rng([seed, int(scale)]).normal()  # the same for all designs
                multiples = np.array([design.weights[d] for d in DOMAINS]) * design.tokens * len(DOMAINS) / scale
                found = losses(multiples, scale) + shared + noise * rng.normal()
                planned.append({"run": f"{name}@{seed}", "design": name, "scale": scale, "seed": seed,
                                "weights": design.weights.as_dict(), "tokens": design.tokens})  # fmt: skip
                for share, phase in ((0.5, "constant"), (1.0, "final")) if points else ((1.0, "final"),):
                    rows.append(_row(planned[-1], design.tokens * share, phase, found + 1 - share))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "runs.parquet")
    plan = {"version": 1, "kind": "sweep", "config": {}, "deepspeed": {}, "evaluations": 4, "runs": planned,
            "target": {"tokens": target, "parameters": 1e8 if target else None}}  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def _row(planned, tokens, phase, found):
    return {
        **{key: planned[key] for key in ("run", "design", "scale", "seed")},
        "phase": phase,
        "parameters": PARAMETERS,
        "tokens": tokens,
        "flops": 6 * PARAMETERS * tokens,
        **{f"weight/{name}": planned["weights"][name] for name in DOMAINS},
        **{f"loss/{name}": float(loss) for name, loss in zip(DOMAINS, found, strict=True)},
    }
