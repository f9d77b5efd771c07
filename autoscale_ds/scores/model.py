"""A prediction of scores: the two curves of every task, how well they did on runs left out, and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscale_ds.errors import ScoreError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.scores.curves import SAME, BitsCurve, ScoreCurve

# Noise drawn on top of each draw of a fit.
REPEATS = 20
# Ends of the 90 % interval.
ENDS = (0.05, 0.95)
# A warning is given beyond this multiple of the largest compute (tokens times parameters) that was fitted.
FAR = 10.0


@dataclass(frozen=True)
class Prediction:
    """Of one task at n scales.

    Attributes
    ----------
    bits, scores : array (n,)
        Predicted bits per byte and score.
    low, high : array (n,)
        90 % interval of the score that one run gets.
    """

    bits: Array
    scores: Array
    low: Array
    high: Array


def predict(bits: BitsCurve, score: ScoreCurve, parameters: Array, tokens: Array, widen: float = 1.0) -> Prediction:
    """Return what two curves say of the ends of runs at these sizes and tokens (n,).

    The interval holds the draws of both curves and the noise of both: a run's bits lie around their curve, and its
    score around the curve of its bits. ``widen`` stretches it.
    """
    known = bits.predict(parameters, tokens)
    scores = score.predict(known)
    rng = np.random.default_rng(0)
    drawn = np.repeat(bits.drawn(parameters, tokens), REPEATS, axis=0)
    drawn = drawn * np.exp(bits.found.noise * rng.standard_normal(drawn.shape))
    spread = score.drawn(drawn.reshape(-1, REPEATS * len(known))).reshape(drawn.shape)
    spread = spread + score.found.noise * rng.standard_normal(drawn.shape)
    low, high = np.quantile(spread, ENDS, axis=0)
    low, high = (
        scores + widen * (np.minimum(low, scores) - scores),
        scores + widen * (np.maximum(high, scores) - scores),
    )
    return Prediction(known, np.clip(scores, 0.0, 1.0), np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0))


@dataclass(frozen=True)
class Check:
    """What happened on runs left out of a fit.

    Attributes
    ----------
    runs : int
        How many predictions were compared; 0 when the table has too few scales.
    error : float
        Mean absolute error, as a share.
    last_error : float
        That of a baseline: the score of the fitted run with the most compute, among those of at most its size.
    rank_correlation : float
        Spearman's, of bits per byte and score over the runs' ends; near -1 where the score follows.
    """

    runs: int
    error: float
    last_error: float
    rank_correlation: float

    @property
    def doubt(self) -> str | None:
        """Why the task cannot be predicted from these runs, or None."""
        if not self.rank_correlation <= -0.5:
            return f"its score does not follow its bits per byte (rank correlation {self.rank_correlation:.2f})"
        if self.runs and self.error > 0.9 * self.last_error:
            return (
                f"on runs left out the prediction missed by {100 * self.error:.1f} points, "
                f"the score of the largest run fitted by {100 * self.last_error:.1f}"
            )
        return None


@dataclass(frozen=True)
class TaskModel:
    """The curves of one task, and how they did on runs left out."""

    bits: BitsCurve
    score: ScoreCurve
    check: Check


@dataclass(frozen=True)
class ScoreModel:
    """What was fitted to a table.

    Attributes
    ----------
    tasks : mapping of str to TaskModel
        By task.
    chance : mapping of str to float
        Score of guessing, where it was given.
    widen : float
        Factor on the intervals, from the predictions of runs left out, all tasks together; 1 without any.
    parameters, tokens : tuple of (low, high)
        Smallest and largest of the runs.
    compute : float
        Largest tokens times parameters.
    files : tuple of str
        Names of the tables.
    """

    tasks: Mapping[str, TaskModel]
    chance: Mapping[str, float]
    widen: float
    parameters: tuple[float, float]
    tokens: tuple[float, float]
    compute: float
    files: tuple[str, ...] = ()

    def predict(self, parameters: Sequence[float] | Array, tokens: Sequence[float] | Array) -> dict[str, Prediction]:
        """Return the prediction of every task at the end of runs of these sizes and tokens (n,).

        Raises
        ------
        ScoreError
            For another size, or another length, where the table had only one.
        """
        sizes, lengths = np.asarray(parameters, float), np.asarray(tokens, float)
        for asked, (low, high), what in ((sizes, self.parameters, "size"), (lengths, self.tokens, "length")):
            away = (asked < low / SAME) | (asked > high * SAME)
            if high <= SAME * low and away.any():
                raise ScoreError(
                    f"{asked[away][0]:g} asked, but all runs of the table have one {what}, {high:g}; add runs of others"
                )
        return {name: predict(task.bits, task.score, sizes, lengths, self.widen) for name, task in self.tasks.items()}

    def warnings(self, parameters: Array, tokens: Array) -> list[str]:
        """Return warnings about scales far from the table's, one line each."""
        factor = float(np.max(parameters * tokens)) / self.compute
        if factor <= FAR:
            return []
        return [
            f"{factor:.0f} times the compute of the largest run of the table; intervals were checked for far less: "
            "train a run between"
        ]
