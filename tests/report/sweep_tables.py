"""Sweep folders whose optimum is known in closed form.

The mean loss is ``V (sum_i (x_i + a_i)^-b + C)`` in multiples x of the base run's tokens by domain, as DDO has it. With
one b and a uniform base, the optimum makes all ``x_i + a_i`` equal.
"""

import numpy as np

from autoscale_ds.files import write_json
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.search.design import ddo_plan
from autoscale_ds.sweep.plan import SweepPlan, Target, run_folder, with_seeds
from autoscale_ds.sweep.results import RESULT_FILE, collect

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
    """Write the plan of a DDO sweep and the result of every run, and collect them, as workers do."""
    base = DomainWeights.uniform(list(DOMAINS))
    runs = [run for scale in scales for run in with_seeds(ddo_plan(base, scale), scale, seeds, extra_seeds)]
    plan = SweepPlan({}, {}, tuple(runs), target=Target(target, 1e8 if target else None))
    plan.write(folder)
    for index, run in enumerate(runs):
        multiples = np.array([run.weights[d] for d in DOMAINS]) * run.tokens * len(DOMAINS) / run.scale
        shared = (
            min(10 * noise, 0.1) * np.random.default_rng([run.seed, int(run.scale)]).normal()
        )  # the same for all designs
        own = noise * np.random.default_rng([index, 7]).normal()
        found = dict(zip(DOMAINS, losses(multiples, run.scale) + shared + own, strict=True))
        early = {name: loss + 0.5 for name, loss in found.items()}
        reached = [{"tokens": run.tokens / 2, "phase": "constant", "loss": early}] if points else []
        reached.append({"tokens": run.tokens, "phase": "final", "loss": found})
        run_folder(folder, run).mkdir(parents=True)
        result = {"run": run.run, "parameters": PARAMETERS, "flops_per_token": 6 * PARAMETERS, "points": reached}
        write_json(run_folder(folder, run) / RESULT_FILE, result)
    collect(folder, plan)
    return folder
