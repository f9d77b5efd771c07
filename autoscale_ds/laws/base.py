"""What a law is: something fitted to the losses of one target, and what it needs of a run table.

Most laws are a ``Formula`` (``fitting.py``): stated once, in natural units, with the derivative of every parameter and
of every weight. Fitting, bounds, priors, starts, ensembles and storage are shared. Trees are a law that is not smooth.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.jsonfiles import Field

Natural = Mapping[str, Array]


@dataclass(frozen=True)
class Setting:
    """What stays fixed while one target is fitted.

    Attributes
    ----------
    domains : tuple of str
        Names of the m domains, in the order of the weights.
    own : int or None
        Column of the domain that stands for the target in laws that know only one domain.
    reference_tokens, reference_parameters : float
        Scales are counted in multiples of these, so that coefficients have the size of losses.
    tokens_vary, parameters_vary : bool
        Whether the table carries several; a law leaves out the terms nothing could determine.
    repeats : bool
        Whether a run of the table read the text of a domain more than once.
    """

    domains: tuple[str, ...]
    own: int
    reference_tokens: float = 1.0
    reference_parameters: float = 1.0
    tokens_vary: bool = False
    parameters_vary: bool = False
    repeats: bool = False


@dataclass(frozen=True)
class Inputs:
    """Where losses are asked for: weights (n, m), and logs of tokens and size over their references (n,).

    ``run`` (n,) numbers the run a row is of, where rows may be checkpoints of one run: their errors are alike, so many
    of them tell less than as many runs. None where every row is a run of its own.

    ``passes`` (n, m) are the times that each run would read a domain's text over if it read nothing else, its tokens
    over the unique tokens of the domain; None where those are not known.
    """

    weights: Array
    log_tokens: Array
    log_parameters: Array
    run: npt.NDArray[np.intp] | None = None
    passes: Array | None = None

    def __len__(self) -> int:
        return len(self.weights)

    def take(self, rows: npt.NDArray) -> Inputs:
        """Return some of the rows."""
        run = None if self.run is None else self.run[rows]
        passes = None if self.passes is None else self.passes[rows]
        return Inputs(self.weights[rows], self.log_tokens[rows], self.log_parameters[rows], run, passes)


@dataclass(frozen=True)
class Parameter:
    """One parameter, or one for each domain, as the fit sees it.

    ``start``, ``lower``, ``upper``, ``width`` and ``jitter`` are in the units of ``form``: the number itself
    (linear), its logarithm (log) or its log odds (logit). ``width`` is the standard deviation of a Gaussian prior
    around ``start``; None is no prior. ``jitter`` spreads the further starts.
    """

    name: str
    start: float
    lower: float
    upper: float
    width: float | None = None
    per_domain: bool = False
    form: Literal["linear", "log", "logit"] = "linear"
    jitter: float = 0.5


class TargetModel(Protocol):
    """What is fitted to one target."""

    @property
    def noise(self) -> float:
        """Standard deviation of a run around the prediction, nats."""

    def predict(self, x: Inputs) -> Array:
        """Return losses (n,)."""

    def members(self) -> Sequence[TargetModel]:
        """Return equally likely alternatives."""


class Law(ABC):
    """A way to predict the loss of one target.

    Attributes
    ----------
    name : str
        As given to ``--law``.
    formula : str
        One line, for people.
    smooth : bool
        Whether its fits have ``slope(x)``, the derivative by each weight (n, m).
    needs_tokens : bool
        Whether several token counts are needed to fit it.
    needs_unique : bool
        Whether it counts how often text is repeated, which takes the unique tokens of every domain.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    smooth: ClassVar[bool] = True
    needs_tokens: ClassVar[bool] = False
    needs_unique: ClassVar[bool] = False

    @abstractmethod
    def fit(
        self,
        x: Inputs,
        y: Array,
        setting: Setting,
        *,
        seed: int = 0,
        starts: int = 2,
        draws: int = 0,
        widen: float = 1.0,
    ) -> Any:
        """Return a ``TargetModel`` fitted to losses y (n,), with ``draws`` members for the intervals.

        ``widen`` is a factor on the noise that the members are drawn with.
        """

    @abstractmethod
    def encode(self, fitted: Any) -> dict[str, Any]:
        """Return plain values from which ``decode`` makes the same fit."""

    @abstractmethod
    def decode(self, entry: Field, setting: Setting) -> Any:
        """Return the fit that ``encode`` described; raises ValueError naming a field that cannot be."""

    @abstractmethod
    def fewest_rows(self, setting: Setting) -> int:
        """Return how many runs a fit asks for."""

    @abstractmethod
    def says_it_needs(self, setting: Setting) -> tuple[str, str]:
        """Return in words what ``fewest_rows`` follows from, and what to do besides adding runs."""

    def unavailable(self) -> str | None:
        """Return why it cannot be used on this machine, or None."""
        return None

    def lacks(self, setting: Setting) -> str | None:
        """Return what the law needs and the table does not vary, or None."""
        if self.needs_tokens and not setting.tokens_vary:
            return "at another token count"
        return None


def level(y: Array, drop: float = 0.5) -> Parameter:
    """Return the irreducible loss E: between 0 and the largest loss seen, started below the smallest."""
    return Parameter("E", max(float(y.min() - drop * y.std()), 0.0), 0.0, float(y.max()), jitter=0.5 * float(y.std()))


def amplitude(name: str, y: Array, share: float = 2.0) -> Parameter:
    """Return a positive coefficient in nats, started at ``share`` standard deviations of the losses."""
    start = float(np.log(max(share * float(y.std()), 1e-6)))
    return Parameter(name, start, start - 20, start + 12, width=4.0, form="log")


def exponent(name: str, start: float = 0.5, lower: float = 0.05, upper: float = 2.5, width: float = 0.7) -> Parameter:
    """Return a positive exponent with a prior of a factor ``exp(width)`` either way."""
    return Parameter(name, float(np.log(start)), float(np.log(lower)), float(np.log(upper)), width, form="log")


def scale_parameters(setting: Setting, y: Array, share: float = 1.0, suffix: str = "") -> list[Parameter]:
    """Return the parameters of ``A / N^alpha + B_D / D^beta``, only for what varies.

    ``share`` is the start of A and B_D in standard deviations of the losses y (n,); ``suffix`` ends the names.
    """
    parameters = []
    if setting.parameters_vary:
        parameters += [amplitude(f"A{suffix}", y, share), exponent(f"alpha{suffix}", 0.3, 0.02)]
    if setting.tokens_vary:
        parameters += [amplitude(f"B{suffix or '_D'}", y, share), exponent(f"beta{suffix}", 0.3, 0.02)]
    return parameters


def scale_terms(p: Natural, x: Inputs, suffix: str = "") -> tuple[Array, dict[str, Array]]:
    """Return ``A / N^alpha + B_D / D^beta`` and its derivatives, of the parameters whose names end by ``suffix``."""
    total, by = np.zeros(len(x)), {}
    size = (f"A{suffix}", f"alpha{suffix}", x.log_parameters)
    tokens = (f"B{suffix or '_D'}", f"beta{suffix}", x.log_tokens)
    for amount, power, log_scale in (size, tokens):
        if amount in p:
            share = np.exp(-p[power] * log_scale)
            total = total + p[amount] * share
            by[amount], by[power] = share, -p[amount] * share * log_scale
    return total, by
