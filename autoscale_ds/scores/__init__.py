"""Scores of tasks at scales that were not trained: two curves a task, fitted to small runs, with intervals."""

from autoscale_ds.scores.model import ScoreModel
from autoscale_ds.scores.table import ScoreTable

__all__ = ["ScoreModel", "ScoreTable"]
