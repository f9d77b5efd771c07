"""The mixtures a sweep is asked for: by name, from weights files, or planned by ``fit_mixture.py design``."""

from __future__ import annotations

from pathlib import Path

from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import ConfigError
from autoscale_ds.mixture import DomainWeights
from autoscale_ds.mixture.jsonfiles import read_json
from autoscale_ds.search.design import ProbeRun
from autoscale_ds.training.setup import initial_weights


def named_mixture(text: str, corpus: Corpus) -> tuple[str, DomainWeights]:
    """Return name and weights of ``uniform``, ``proportional``, ``NAME=weights.json`` or a weights file.

    A file alone is named after itself.
    """
    name, _, source = text.rpartition("=")
    return name or Path(source).stem, initial_weights(source, corpus)


def read_designs(path: str | Path) -> list[ProbeRun]:
    """Read the plan that ``fit_mixture.py design`` writes."""
    raw = read_json(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("runs"), list) or not raw["runs"]:
        raise ConfigError(f"{path} is no plan; make one with: fit_mixture.py design … --out {path}")
    try:
        return [ProbeRun(r["run"], DomainWeights(r["weights"]), float(r["tokens"])) for r in raw["runs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from None
