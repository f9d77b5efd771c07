"""From the configuration to a controller whose optimum can be read from the corpus."""

import sys
from pathlib import Path

import numpy as np
import pytest

from autoscale_ds import config
from autoscale_ds.controllers import AutoScaleConfig, Budget, MixtureConfig, RefitConfig, RunFacts, build
from autoscale_ds.errors import ConfigError
from autoscale_ds.laws import lawfile
from autoscale_ds.laws.table_fits import fit_law
from autoscale_ds.mixture import DomainWeights, WeightsFile
from autoscale_ds.search.predictor import save_optima
from autoscale_ds.stream.spec import StreamSpec
from autoscale_ds.training.setup import token_limits

sys.path.insert(0, str(Path(__file__).parents[1] / "mixture"))
from synthetic import World

BUDGET = Budget(10**7, 800)


@pytest.fixture(scope="module")
def law(tmp_path_factory):
    """A law, the domains it is of, and beside it the runs it was fitted to."""
    world = World("exposure", m=4, targets=4, seed=3, tokens=(1e9, 2e9))
    folder = tmp_path_factory.mktemp("law")
    world.table(40).write(folder / "final.csv")
    header, *rows = (folder / "final.csv").read_text().splitlines()
    (folder / "runs.csv").write_text("\n".join([f"{header},phase", *(f"{row},constant" for row in rows)]) + "\n")
    lawfile.save(fit_law(world.table(40), "exposure", draws=4), folder / "law.json")
    return folder / "law.json", world.domains


def controller(predictor, domains, limits=None, **mixture):
    facts = RunFacts(BUDGET, lambda written: DomainWeights.uniform(list(domains)), None, 10**8, limits=limits)
    return build(AutoScaleConfig(str(predictor), **mixture), facts)


def test_the_optimum_of_a_law_keeps_the_floor_and_what_the_epochs_allow(law):
    path, domains = law
    free = controller(path, domains).initial().weights
    best, worst = max(free, key=free.get), min(free, key=free.get)
    limit = 0.8 * free[best] * BUDGET.tokens
    bound = controller(path, domains, {best: limit}, floor=free[worst] + 0.05).initial().weights
    assert bound[best] * BUDGET.tokens == pytest.approx(limit)
    assert bound[worst] == pytest.approx(free[worst] + 0.05)
    assert sum(bound.values()) == pytest.approx(1.0)


def test_on_the_way_no_domain_gets_more_than_its_limit(law):
    path, domains = law
    free = controller(path, domains).initial().weights
    best = max(free, key=free.get)
    limit = 0.5 * free[best] * BUDGET.tokens
    predictor = controller(path, domains, {best: limit}, mode="anytime")._predictor
    seen = [tokens * predictor.predict(tokens)[best] for tokens in np.geomspace(BUDGET.tokens / 100, BUDGET.tokens, 50)]
    assert max(seen) <= limit * (1 + 1e-9)
    assert max(seen) == pytest.approx(limit)


def test_a_refit_stays_within_the_same_bounds(law):
    path, domains = law
    refit = RefitConfig((str(path.parent / "runs.csv"),), 1e9)
    found = controller(path, domains, {domains[0]: 1e9}, floor=0.02, refit=refit)
    assert found._bounds.caps[0] == pytest.approx(1e9 / BUDGET.tokens)
    assert found._bounds.floors.tolist() == [0.02] * 4


def test_a_law_of_repetition_gets_the_text_of_the_run(tmp_path):
    world = World("exposure-repetition", m=3, targets=3, seed=4)
    world.table(30).write(tmp_path / "final.csv")
    lawfile.save(fit_law(world.table(30), "exposure-repetition", draws=2), tmp_path / "law.json")
    tokens = dict.fromkeys(world.domains, 1e12)
    found = []
    for of_the_first in (1e12, BUDGET.tokens / 100):
        facts = RunFacts(
            BUDGET,
            lambda written: DomainWeights.uniform(list(world.domains)),
            None,
            10**8,
            unique={**tokens, world.domains[0]: of_the_first},
        )
        found.append(build(AutoScaleConfig(str(tmp_path / "law.json")), facts).initial().weights[world.domains[0]])
    assert found[1] < found[0] - 0.02


@pytest.mark.parametrize(
    ("limits", "floor", "message"),
    [
        (1e9, 0.0, "leave no mixture for 8,000,000,000 tokens: the caps sum to 0.5, so the budget cannot be filled"),
        (1e10, 0.3, "leave no mixture for 8,000,000,000 tokens: floor 0.3 for 4 domains"),
        (3e9, 0.0, None),
    ],
)
def test_bounds_that_cannot_be_met_are_one_line(law, limits, floor, message):
    path, domains = law
    limits = dict.fromkeys(domains, limits)
    if message is None:
        controller(path, domains, limits, floor=floor)
        return
    with pytest.raises(ConfigError, match=message) as raised:
        controller(path, domains, limits, floor=floor)
    assert "\n" not in str(raised.value)


def test_other_predictors_hold_a_floor_of_their_own(tmp_path):
    weights = DomainWeights({"a": 0.4, "b": 0.6})
    WeightsFile(weights).write(tmp_path / "weights.json")
    save_optima(tmp_path / "path.json", [(1e6, weights), (2e6, DomainWeights({"a": 0.5, "b": 0.5}))], 0.1)
    for name in ("weights.json", "path.json"):
        with pytest.raises(ConfigError, match=r"mixture.floor is 0.1, but mixture.predictor .* is no law.json"):
            controller(tmp_path / name, ("a", "b"), floor=0.1)
    with pytest.raises(ConfigError, match=r"mixture.floor is given, but mixture.controller is fixed"):
        config.build(MixtureConfig, {"floor": 0.1}, "mixture.")
    with pytest.raises(ConfigError, match=r"mixture.floor is -1, expected between 0 and 1"):
        config.build(MixtureConfig, {"controller": "autoscale", "predictor": "law.json", "floor": -1}, "mixture.")


def test_a_limit_is_a_sample_short_of_the_epochs():
    spec = StreamSpec(0, 8, {"a": 100, "b": 7, "c": 50}, {"a": 2.0, "b": 0.1})
    assert token_limits(spec, 16) == {"a": 199 * 16.0, "b": 0.0}
