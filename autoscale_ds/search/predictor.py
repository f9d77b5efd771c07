"""The best weights at any budget, from any of the files that hold them.

``autoscale.json`` (optima at two scales or more, extrapolated), ``law.json`` (a fitted law, minimised) and
``weights.json`` (one mixture for every budget) become the same thing: a function from tokens to weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from autoscale_ds.errors import MixtureError
from autoscale_ds.files import write_json
from autoscale_ds.laws import lawfile
from autoscale_ds.laws.model import LossModel
from autoscale_ds.mixture.jsonfiles import read_json
from autoscale_ds.mixture.objective import Objective
from autoscale_ds.mixture.simplex import Bounds
from autoscale_ds.mixture.weights import DomainWeights
from autoscale_ds.mixture.weightsfile import WeightsFile
from autoscale_ds.search.autoscale import AutoScale
from autoscale_ds.search.solver import Goal, minimum, seen_bounds

KIND, VERSION = "autoscale", 1
# A law is minimised at budgets this factor apart; 20 searches cover a factor of a thousand. Halfway between, weights
# were at most 0.0004 off the minimum and cost 1e-7 nats (four laws, four worlds of six domains each).
KNOT_RATIO = math.sqrt(2)


class Predictor(Protocol):
    """The best weights as a function of the budget."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains the weights are for."""

    def predict(self, tokens: float) -> DomainWeights:
        """Return the best weights for a training budget in tokens; deterministic, and cheap after the first time."""


class Constant:
    """The same weights at every budget."""

    def __init__(self, weights: DomainWeights) -> None:
        self._weights = weights

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains the weights are for."""
        return tuple(self._weights)

    def predict(self, tokens: float) -> DomainWeights:
        """Return the weights."""
        return self._weights


class AutoScalePath:
    """The path through optima at two scales or more; below the smallest of them, the weights it has there.

    Parameters
    ----------
    optima : sequence of (tokens, DomainWeights)
        Optimal weights at each budget that was searched.
    floor : float
        As for ``AutoScale.fit``.
    """

    def __init__(self, optima: Sequence[tuple[float, DomainWeights]], floor: float) -> None:
        self._path = AutoScale.fit(optima, floor=floor)
        smallest = min(optima, key=lambda pair: pair[0])
        self._smallest = smallest[0]
        self._first = smallest[1]

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains the weights are for."""
        return self._path.domains

    def predict(self, tokens: float) -> DomainWeights:
        """Return the weights on the path, or those of the smallest scale where the path has no such total."""
        try:
            return self._path.predict(max(tokens, self._smallest))
        except MixtureError:
            return self._first


class LawOptimum:
    """The minimum of a fitted law's mean loss, found at knots when first needed and interpolated between them.

    Below the smallest budget among the law's runs the weights are those of that budget.

    Parameters
    ----------
    model : LossModel
        The fitted law.
    anchor_tokens : float
        A budget at which the minimum is exact; other knots lie powers of ``KNOT_RATIO`` from it.
    parameters : float
        Size of the model that trains, where the law knows size.
    floor : float
        Smallest weight of a domain.
    limits : mapping of str to float, optional
        Tokens that may be read of a domain, where there is a limit: its weight at t tokens is at most limit / t.
    """

    def __init__(
        self,
        model: LossModel,
        anchor_tokens: float,
        parameters: float,
        floor: float = 0.0,
        limits: Mapping[str, float] | None = None,
    ) -> None:
        model.refuse_beyond(anchor_tokens, parameters)
        self.model = model
        self._anchor = anchor_tokens
        self._parameters = parameters
        self._objective = Objective.of_kind("mean-loss", tuple(model.targets))
        self._floor = floor
        self._limits = dict(limits or {})
        self._optima: dict[float, DomainWeights] = {}

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains the weights are for."""
        return self.model.domains

    def bounds(self, tokens: float) -> Bounds:
        """Return the bounds of the weights at a budget; raises MixtureError when no mixture lies within."""
        caps = {name: limit / tokens for name, limit in self._limits.items()}
        return seen_bounds(self.model, self._floor, caps)

    def predict(self, tokens: float) -> DomainWeights:
        """Return weights linear in log tokens between the two nearest knots, within bounds."""
        if not self.model.scales.tokens_vary:
            return self._at(self._anchor)
        place = math.log(tokens / self._anchor, KNOT_RATIO)
        below = math.floor(place + 1e-9)
        share = max(place - below, 0.0)
        left = self._at(self._anchor * KNOT_RATIO**below)
        if share < 1e-9:
            return left
        right = self._at(self._anchor * KNOT_RATIO ** (below + 1))
        between = {name: (1 - share) * left[name] + share * right[name] for name in left}
        return DomainWeights.normalised(self._clipped(between, tokens) if self._limits else between)

    def _clipped(self, weights: Mapping[str, float], tokens: float) -> dict[str, float]:
        """Return weights within bounds: a cap falls as 1 / tokens, and a straight line lies above that."""
        points = np.array([[weights[name] for name in self.domains]])
        return dict(zip(self.domains, map(float, self.bounds(tokens).scale_in(points)[0]), strict=True))

    def _at(self, tokens: float) -> DomainWeights:
        known = max(tokens, self.model.scales.tokens_seen[0])
        knot = tokens if self._limits else known  # limits differ also where the law does not
        if knot not in self._optima:
            goal = Goal(self.model, self._objective, known, self._parameters)
            self._optima[knot] = minimum(goal, self.bounds(knot))
        return self._optima[knot]


def read_predictor(
    path: str | Path,
    *,
    budget_tokens: float,
    parameters: float = math.nan,
    floor: float = 0.0,
    limits: Mapping[str, float] | None = None,
    unique: Mapping[str, float] | None = None,
) -> Predictor:
    """Read autoscale.json, law.json or weights.json.

    Parameters
    ----------
    path : path
        ``autoscale.json``, ``law.json`` or ``weights.json``.
    budget_tokens : float
        The budget of the run it is for; a law's minimum is exact there.
    parameters : float
        Size of that run's model.
    floor, limits
        Of a law's minimum, see ``LawOptimum``; the other files hold weights that were found within bounds of their own.
    unique : mapping of str to float, optional
        Tokens of text that the run can draw from each domain, for a law that counts how often text is repeated.

    Raises
    ------
    MixtureError
        For any other file, saying how to make one.
    """
    raw = read_json(path)
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind == KIND:
        return AutoScalePath(*_read_optima(path, raw))
    if kind == lawfile.KIND:
        law = lawfile.load(path)
        if law.bundle is not None:
            raise MixtureError(
                f"{path} takes {', '.join(law.bundle.shares)} as one domain, so it predicts no weight of each; give "
                "the weights.json that fit_mixture.py decide or optimize makes of it"
            )
        law = law.with_unique(unique) if law.needs_unique and unique is not None else law
        return LawOptimum(law, budget_tokens, parameters, floor, limits)
    if isinstance(raw, dict) and kind is None and isinstance(raw.get("weights", raw), dict):
        return Constant(WeightsFile.read(path).weights)
    raise MixtureError(
        f"{path} predicts no weights (kind {kind!r}); give the autoscale.json of 'fit_mixture.py autoscale "
        "--save-path', a law.json of 'fit_mixture.py fit', or a weights.json"
    )


def is_path(path: str | Path) -> bool:
    """Return whether a JSON file is what ``save_optima`` writes."""
    raw = read_json(path)
    return isinstance(raw, dict) and raw.get("kind") == KIND


def save_optima(path: str | Path, optima: Sequence[tuple[float, DomainWeights]], floor: float) -> None:
    """Write autoscale.json: what ``read_predictor`` fits the path through; atomic."""
    entries = [{"tokens": tokens, "weights": weights.as_dict()} for tokens, weights in sorted(optima, key=_tokens)]
    try:
        write_json(path, {"kind": KIND, "version": VERSION, "floor": floor, "optima": entries})
    except OSError as error:
        raise MixtureError(f"cannot write {path}: {error.strerror or error}") from None


def _tokens(optimum: tuple[float, DomainWeights]) -> float:
    return optimum[0]


def _read_optima(path: str | Path, raw: dict[str, Any]) -> tuple[list[tuple[float, DomainWeights]], float]:
    if raw.get("version") != VERSION:
        raise MixtureError(f"{path}: version {raw.get('version')!r}, this program reads version {VERSION}")
    try:
        optima = [(float(entry["tokens"]), DomainWeights(entry["weights"])) for entry in raw["optima"]]
        return optima, float(raw["floor"])
    except (KeyError, TypeError, ValueError) as error:
        raise MixtureError(f"{path} lacks or misnames a field: {error}; write it again with --save-path") from None
