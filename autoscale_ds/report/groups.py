"""Runs that differ only in their seed, as groups: their names, curves and final figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoscale_ds import config as configuration
from autoscale_ds.errors import ReportError
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.report.compare import Interval, SpeedUp, interval, mean_curve, speed_up, tokens_to_reach
from autoscale_ds.report.reading import Run

# With more differences than this the group is named after its folder.
MOST_DIFFERENCES = 2


@dataclass(frozen=True)
class Group:
    """Runs of one configuration, one a seed."""

    label: str
    runs: tuple[Run, ...]

    def curve(self, figure: str) -> tuple[Array, Array, Array, Array]:
        """Return tokens, mean, least and largest value of a validation figure over seeds.

        Empty where the seeds have no validation in common.
        """
        curves = [run.curve("validation", figure) for run in self.runs]
        if not all(len(tokens) for tokens, _ in curves):
            return np.empty(0), np.empty(0), np.empty(0), np.empty(0)
        return mean_curve(curves)

    def final(self, figure: str, domain: str | None = None) -> Interval | None:
        """Return the last validation figure over seeds, at the same tokens for all; None without validation."""
        end = self.end
        if end is None:
            return None
        curves = [run.curve("validation", figure, domain) for run in self.runs]
        values = [float(np.interp(end, tokens, values)) for tokens, values in curves if len(tokens)]
        return interval(values) if values else None

    @property
    def end(self) -> float | None:
        """Tokens of the newest validation that every seed has come to; None when one has none."""
        last = [run.validation[-1]["tokens"] if run.validation else None for run in self.runs]
        known = [float(tokens) for tokens in last if tokens is not None]
        return min(known) if len(known) == len(last) else None

    def reached(self, target: float, figure: str) -> dict[int, float | None]:
        """Return the tokens at which a validation figure of each seed was first at or below a target."""
        curves = {run.config.seed: run.curve("validation", figure) for run in self.runs}
        return {seed: tokens_to_reach(list(x), list(y), target) for seed, (x, y) in curves.items()}


@dataclass(frozen=True)
class Race:
    """Tokens to a target by group and seed, and the speed-up of each group over the first."""

    target: float
    reached: Mapping[str, Mapping[int, float | None]]
    speed_ups: Mapping[str, SpeedUp]


def race(groups: Sequence[Group], target: float | None, figure: str = "mean_perplexity") -> Race | None:
    """Return the tokens at which each group reaches a value of a validation figure; None where the first has none.

    The target is by default the final value of the first group, of its slowest seed, so that all of its seeds reach it.
    """
    if target is None:
        finals = [run.curve("validation", figure)[1][-1:] for run in groups[0].runs]
        if not all(len(final) for final in finals):
            return None
        target = max(float(final[0]) for final in finals)
    reached = {group.label: group.reached(target, figure) for group in groups}
    first = reached[groups[0].label]
    return Race(target, reached, {name: speed_up(first, tokens) for name, tokens in list(reached.items())[1:]})


def group_runs(runs: Sequence[Run], named: Mapping[str, Sequence[Run]]) -> list[Group]:
    """Return groups: the named ones first, then runs equal in all but folder and seed, in order of appearance.

    Raises
    ------
    ReportError
        When a group has the same seed twice.
    """
    groups = [Group(name, tuple(members)) for name, members in named.items()]
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(repr((sorted(_settings(run).items()), _journal(run))), []).append(run)
    labels = _labels([members[0] for members in alike.values()], taken=list(named))
    groups += [Group(name, tuple(members)) for name, members in zip(labels, alike.values(), strict=True)]
    for group in groups:
        _refuse_seed_twice(group)
    return groups


def _refuse_seed_twice(group: Group) -> None:
    seen: dict[int, Run] = {}
    for run in group.runs:
        if run.config.seed in seen:
            raise ReportError(
                f"{seen[run.config.seed].path} and {run.path} are one group and have the same seed {run.config.seed}; "
                "give only one of them, or name groups with --label NAME=RUN,RUN"
            )
        seen[run.config.seed] = run


def _settings(run: Run) -> dict[str, Any]:
    """Return the configuration as dotted names, without folder and seed."""
    values = dict(_flat(configuration.to_dict(run.config)))
    return {name: value for name, value in values.items() if name not in ("run", "seed")}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in tree.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return pairs


def _journal(run: Run) -> list[tuple[Any, ...]]:
    return [
        (event.effective_step, sorted(event.weights.items()), repr(event.stream and event.stream.to_json()))
        for event in run.events
    ]


def _labels(runs: Sequence[Run], taken: Sequence[str]) -> list[str]:
    """Return a name for each: the settings in which it differs, with its swaps where needed, else its folder's."""
    settings = [_settings(run) for run in runs]
    names = sorted({name for each in settings for name in each})
    differ = [name for name in names if len({repr(each.get(name)) for each in settings}) > 1]
    short = [", ".join(f"{_last(name, differ)} {_short(each.get(name))}" for name in differ) for each in settings]
    swaps = [f"{len(run.swaps)} swap{'' if len(run.swaps) == 1 else 's'}" for run in runs]
    choices = [
        short,
        [", ".join(filter(None, pair)) for pair in zip(short, swaps, strict=True)],
        [re.sub(r"[-_.]?(s|seed)?[-_.]?\d+$", "", run.name) for run in runs],
        [run.name for run in runs],
    ]
    for labels in choices if len(runs) > 1 and len(differ) <= MOST_DIFFERENCES else choices[2:]:
        if all(labels) and len({*labels, *taken}) == len(labels) + len(taken):
            return labels
    return [str(run.path) for run in runs]


def _last(name: str, names: Sequence[str]) -> str:
    """Return the last part of a dotted name where that is enough."""
    last = name.rpartition(".")[2]
    return last if [other.rpartition(".")[2] for other in names].count(last) == 1 else name


def _short(value: Any) -> str:
    return (
        value.rpartition("/")[2] if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else f"{value}"
    )
