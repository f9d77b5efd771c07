"""Run tables: which mixture was trained how far, and what it reached.

A CSV or Parquet file with the columns ``run``, ``parameters`` (may be absent when every run has the same unknown size),
``tokens``, ``weight/<domain>`` (summing to 1) and ``loss/<target>`` (nats per token). An empty loss cell means "not
measured"; a loss of ``nan`` or ``inf`` is a broken run and refused, or dropped on request. A column ``phase`` tells
``final`` losses, at the end of a learning-rate schedule, from ``constant`` ones, before its cooldown: the two are never
fitted together. The columns ``design`` and ``seed`` say which runs repeat each other; in a table without both of them
the names do, see ``design_and_seed``. The columns ``tokenizer`` and ``text/<name>`` tell rows of different text apart,
see ``evidence``. The columns ``unique/<domain>``, for all domains or none, hold the tokens of text that a run could
draw from a domain: a run that trained on more of them repeated some. The columns ``part/<domain>/<part>`` say that a
domain stands for several, see ``bundle``. Other columns are not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoscale_ds.errors import MixtureError
from autoscale_ds.files import write_atomic
from autoscale_ds.mixture import losskinds, tablefile
from autoscale_ds.mixture.arrays import Array
from autoscale_ds.mixture.bundle import PART, Bundle, are_same
from autoscale_ds.mixture.evidence import Evidence
from autoscale_ds.mixture.rows import (
    SUM_TOLERANCE,
    is_droppable,
    refuse_false_repeats,
    row_problem,
    without_rests,
)
from autoscale_ds.mixture.tablefile import LOSS, UNIQUE, WEIGHT, number, read_cells

REPEATS = ("design", "seed")


def design_and_seed(run: str) -> tuple[str, str]:
    """Return the design and the seed that a run's name, ``<design>@<seed>``, holds; without ``@`` the seed is empty.

    The only place where a name is taken apart, for tables and rows without the columns ``design`` and ``seed``.

    >>> design_and_seed("1M/low/web@3"), design_and_seed("run7")
    (('1M/low/web', '3'), ('run7', ''))
    """
    design, _, seed = run.rpartition("@")
    return (design, seed) if design else (run, "")


@dataclass(frozen=True)
class RunTable:
    """Runs as arrays, one row a run.

    Attributes
    ----------
    runs : tuple of str
        Names, length n.
    domains, targets : tuple of str
        What the columns of ``weights`` (n, m) and ``losses`` (n, k) stand for.
    weights : array (n, m)
        Share of each domain; rows sum to 1 within 5e-3, as rounded tables do.
    tokens, parameters : array (n,)
        Training tokens and model size; ``parameters`` is NaN throughout when the table does not know it.
    losses : array (n, k)
        Nats per token, NaN where not measured.
    dropped : tuple of str
        What was left out on request, one line each.
    notes : tuple of str
        What should be said of the text and tokenizer of the rows, one line each.
    designs, seeds : tuple of str
        Length n: runs of one design differ in nothing but their seed, which is empty where unknown. Rows without them
        (the tuples are shorter than ``runs``) get those of their names.
    unique : array (n, m) or None
        Tokens of text that each run could draw from each domain; None where the table does not say.
    bundle : Bundle or None
        Which of the domains stands for several that keep their proportions, from the columns ``part/``.
    """

    runs: tuple[str, ...]
    domains: tuple[str, ...]
    targets: tuple[str, ...]
    weights: Array
    tokens: Array
    parameters: Array
    losses: Array
    dropped: tuple[str, ...] = ()
    designs: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    unique: Array | None = None
    notes: tuple[str, ...] = ()
    bundle: Bundle | None = None

    def __post_init__(self) -> None:
        """Fill ``designs`` and ``seeds`` of rows that came without them."""
        named = [design_and_seed(run) for run in self.runs[len(self.designs) :]]
        object.__setattr__(self, "designs", (*self.designs, *(design for design, _ in named)))
        object.__setattr__(self, "seeds", (*self.seeds, *(seed for _, seed in named)))

    @classmethod
    def read(
        cls,
        paths: str | Path | Sequence[str | Path],
        *,
        drop_bad: bool = False,
        phase: str = "final",
        loss_kind: str | None = None,
        columns: Sequence[str] = (),
        accept_changed: bool = False,
    ) -> RunTable:
        """Read one table, or several with the same domains as one.

        Parameters
        ----------
        paths : path or sequence of paths
            CSV, JSON lines, or Parquet by its suffix.
        drop_bad : bool
            Leave out rows with NaN, infinite or no losses (reported in ``dropped``) instead of refusing the table.
        phase : {"final", "constant"}
            Which rows of a table with a column ``phase`` are read; one without it holds final losses.
        loss_kind : {"nats", "perplexity", "bits-per-byte", "accuracy"}, optional
            What the losses are; they are converted to something to minimise (``losskinds.KINDS``). By default nats per
            token, and refused where they look like another kind.
        columns : sequence of str
            ``OLD=NEW`` each: columns that are called otherwise, see ``tablefile.read_cells``.
        accept_changed : bool
            Take rows together although the text of a domain or target changed between them.

        Raises
        ------
        MixtureError
            For a missing column, weights that do not sum to 1, a value that is no number, a run listed twice, runs of
            one design whose weights or unique tokens differ, or rows of different tokenizers or changed texts.
        """
        paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
        if not paths:
            raise MixtureError("no run table given; name at least one CSV or Parquet file")
        files = [(Path(path), read_cells(Path(path), phase, columns)) for path in paths]
        read = [(path, _read_one(path, *cells, drop_bad, loss_kind)) for path, cells in files]
        table = _join(read)
        refuse_false_repeats(" and ".join(map(str, paths)), table)
        said = Evidence.joined(Evidence.of(path, *cells, _names(*cells)) for path, cells in files)
        return replace(table, notes=tuple(said.checked(accept_changed)))

    def __len__(self) -> int:
        return len(self.runs)

    def take(self, rows: Any) -> RunTable:
        """Return the rows of an index array or boolean mask, in that order."""
        index = np.arange(len(self))[rows]
        return replace(
            self,
            runs=tuple(self.runs[i] for i in index),
            weights=self.weights[index],
            tokens=self.tokens[index],
            parameters=self.parameters[index],
            losses=self.losses[index],
            designs=tuple(self.designs[i] for i in index),
            seeds=tuple(self.seeds[i] for i in index),
            unique=None if self.unique is None else self.unique[index],
        )

    def with_targets(self, targets: Sequence[str]) -> RunTable:
        """Return the table with only these targets; raises MixtureError for an unknown or empty one."""
        for name in targets:
            if name not in self.targets:
                raise MixtureError(f"no target {name!r} in the table; it has: {', '.join(self.targets)}")
        columns = [self.targets.index(name) for name in targets]
        return replace(self, targets=tuple(targets), losses=self.losses[:, columns])

    def with_domains(self, domains: Sequence[str]) -> RunTable:
        """Return the table with its domains in this order; raises MixtureError unless the sets are the same."""
        if set(domains) != set(self.domains):
            odd = sorted(set(domains) ^ set(self.domains))[0]
            raise MixtureError(
                f"domain {odd!r} is in only one of the two; expected weight columns for: {', '.join(domains)}"
            )
        columns = [self.domains.index(name) for name in domains]
        unique = None if self.unique is None else self.unique[:, columns]
        return replace(self, domains=tuple(domains), weights=self.weights[:, columns], unique=unique)

    def measured(self, target: str) -> npt.NDArray[np.bool_]:
        """Return which rows carry this target, shape (n,)."""
        return np.isfinite(self.losses[:, self.targets.index(target)])

    def scales(self) -> list[tuple[float, float]]:
        """Return the distinct (parameters, tokens), smallest first by compute, then by tokens."""
        pairs = {(float(p), float(t)) for p, t in zip(np.nan_to_num(self.parameters), self.tokens, strict=True)}
        return sorted(pairs, key=lambda pair: ((pair[0] or 1.0) * pair[1], pair[1]))

    def groups(self) -> Iterator[tuple[tuple[float, float], npt.NDArray[np.intp]]]:
        """Yield ((parameters, tokens), row indices) for each distinct scale; parameters is 0 where unknown."""
        parameters = np.nan_to_num(self.parameters)
        for scale in self.scales():
            yield scale, np.flatnonzero((parameters == scale[0]) & (self.tokens == scale[1]))

    def write(self, path: str | Path) -> None:
        """Write the table as CSV: empty cells for what was not measured, design and seed where no name says them."""
        repeats = list(zip(self.designs, self.seeds, strict=True))
        named = repeats == [design_and_seed(run) for run in self.runs]
        shares = {} if self.bundle is None else self.bundle.columns
        header = ["run", *([] if named else REPEATS), "parameters", "tokens", *shares]
        unique = np.empty((len(self), 0)) if self.unique is None else self.unique
        amounts = [UNIQUE + name for name in self.domains] if self.unique is not None else []
        lines = [",".join([*header, *(WEIGHT + d for d in self.domains), *amounts, *(LOSS + t for t in self.targets)])]
        for i, run in enumerate(self.runs):
            scale = [self.parameters[i], self.tokens[i]]
            numbers = [*scale, *shares.values(), *self.weights[i], *unique[i], *self.losses[i]]
            cells = ["" if math.isnan(x) else repr(float(x)) for x in numbers]
            lines.append(",".join([run, *([] if named else repeats[i]), *cells]))
        write_atomic(path, "\n".join(lines) + "\n")


def _names(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return the runs' names; rows without one are called by their line."""
    if "run" not in header:
        return [f"row{i + 2}" for i in range(len(rows))]
    return [str(row[header.index("run")]) for row in rows]


def _read_one(path: Path, header: list[str], rows: list[list[Any]], drop_bad: bool, loss_kind: str | None) -> RunTable:
    domains = tuple(name[len(WEIGHT) :] for name in header if name.startswith(WEIGHT))
    targets = tuple(name[len(LOSS) :] for name in header if name.startswith(LOSS))
    says_unique = any(name.startswith(UNIQUE) for name in header)
    _check_header(path, header, domains, targets)
    if not rows:
        raise MixtureError(f"{path} has a header but no runs")
    column = {name: index for index, name in enumerate(header)}
    runs = _names(header, rows)

    def numbers(name: str, blank: float = math.inf) -> Array:
        return _numbers(path, name, runs, [row[column[name]] for row in rows], blank)

    def stack(prefix: str, names: Iterable[str], blank: float = math.inf) -> Array:
        return np.stack([numbers(prefix + name, blank) for name in names], axis=1)

    def texts(name: str) -> tuple[str, ...]:
        if not set(REPEATS) <= set(header):
            return ()
        return tuple("" if row[column[name]] is None else str(row[column[name]]) for row in rows)

    unknown = np.full(len(rows), math.nan)
    table = RunTable(
        runs=tuple(runs),
        domains=domains,
        targets=targets,
        weights=stack(WEIGHT, domains),
        tokens=numbers("tokens"),
        parameters=numbers("parameters", math.nan) if "parameters" in column else unknown,
        losses=stack(LOSS, targets, math.nan),
        designs=texts("design"),
        seeds=texts("seed"),
        unique=stack(UNIQUE, domains) if says_unique else None,
        bundle=_bundle(path, {name: numbers(name) for name in header if name.startswith(PART)}, domains),
    )
    table = replace(table, weights=without_rests(table.weights))
    if loss_kind is None:
        if doubt := losskinds.suspicion(table.losses):
            raise MixtureError(f"{path}: {doubt}")
    else:
        try:
            table = replace(table, losses=losskinds.converted(table.losses, loss_kind))
        except MixtureError as error:
            raise MixtureError(f"{path}: {error}") from None
    return _checked(path, table, drop_bad, zero=loss_kind in losskinds.ZERO_IS_POSSIBLE)


def _bundle(path: Path, columns: dict[str, Array], domains: Sequence[str]) -> Bundle | None:
    """Return the virtual domain that a table tells, its errors with the table's path."""
    try:
        return Bundle.of_columns(columns, domains)
    except MixtureError as error:
        raise MixtureError(f"{path}: {error}") from None


def _check_header(path: Path, header: list[str], domains: tuple[str, ...], targets: tuple[str, ...]) -> None:
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise MixtureError(f"{path}: column {repeated[0]!r} occurs twice")
    missing = None
    if "tokens" not in header:
        missing = "column 'tokens' is missing; it says how many tokens each run was trained on"
    elif len(domains) < 2:
        missing = f"{len(domains)} columns named weight/<domain>, expected at least 2"
    elif not targets:
        missing = "no column named loss/<target>, expected at least 1"
    if missing:
        raise MixtureError(f"{path}: {missing}; {tablefile.renaming_hint(header)}")
    amounts = {name[len(UNIQUE) :] for name in header if name.startswith(UNIQUE)}
    if amounts and amounts != set(domains):
        odd = sorted(amounts ^ set(domains))[0]
        raise MixtureError(
            f"{path}: of {WEIGHT}{odd} and {UNIQUE}{odd} there is only one; give the columns {UNIQUE}<domain> for all "
            "domains, or for none"
        )
    for kind, names in ((WEIGHT, domains), (LOSS, targets)):
        if any(not name.strip() for name in names):
            raise MixtureError(f"{path}: a column is named {kind!r} without a name behind the slash; name it")


def _numbers(path: Path, name: str, runs: Sequence[str], cells: Sequence[Any], blank: float) -> Array:
    """Return one column. Infinite stands for "broken" until the row is judged, NaN for "not known"."""
    nan = math.nan if name == "parameters" else math.inf
    values = []
    for run, cell in zip(runs, cells, strict=True):
        try:
            values.append(number(cell, blank=blank, nan=nan))
        except (TypeError, ValueError):
            raise MixtureError(f"{path}, run {run!r}: {name} is {cell!r}, expected a number") from None
    return np.array(values)


def _checked(path: Path, table: RunTable, drop_bad: bool, zero: bool) -> RunTable:
    problems = {i: text for i in range(len(table)) if (text := row_problem(table, i, zero))}
    if problems and not drop_bad:
        index, text = next(iter(problems.items()))
        others = f" ({len(problems)} such rows)" if len(problems) > 1 else ""
        hint = ", or leave such rows out with --drop-bad" if is_droppable(table, index, zero) else ""
        raise MixtureError(f"{path}, run {table.runs[index]!r}: {text}{others}; mend it{hint}")
    for index, text in problems.items():
        if not is_droppable(table, index, zero):
            raise MixtureError(f"{path}, run {table.runs[index]!r}: {text}")
    keep = [i for i in range(len(table)) if i not in problems]
    if not keep:
        raise MixtureError(f"{path}: no usable row is left after dropping {len(problems)}")
    dropped = tuple(f"{path}, run {table.runs[i]!r}: {text}" for i, text in problems.items())
    table = replace(table.take(keep), dropped=dropped)
    sums = table.weights.sum(1, keepdims=True)
    return replace(table, weights=np.where(np.abs(sums - 1) > SUM_TOLERANCE, table.weights / sums, table.weights))


def _join(tables: list[tuple[Path, RunTable]]) -> RunTable:
    if len(tables) == 1:
        return tables[0][1]
    first = tables[0][1]
    for path, table in tables:
        if not are_same(first.bundle, table.bundle):
            raise MixtureError(
                f"{path} and {tables[0][0]} do not take the same domains as one in the same proportions; fit them apart"
            )
    targets = tuple(dict.fromkeys(name for _, table in tables for name in table.targets))
    parts = [table.with_domains(first.domains) for _, table in tables]
    losses = np.full((sum(map(len, parts)), len(targets)), math.nan)
    start = 0
    for part in parts:
        losses[start : start + len(part), [targets.index(name) for name in part.targets]] = part.losses
        start += len(part)
    runs = [run for part in parts for run in part.runs]
    designs = [design for part in parts for design in part.designs]
    if len(set(runs)) < len(runs):  # every file may count its runs from 1
        paths = [path for path, _ in tables]
        labels = [path.stem for path in paths]
        labels = labels if len(set(labels)) == len(labels) else list(map(str, paths))
        runs = [f"{label}:{run}" for label, part in zip(labels, parts, strict=True) for run in part.runs]
        designs = [f"{label}:{design}" for label, part in zip(labels, parts, strict=True) for design in part.designs]
    return RunTable(
        runs=tuple(runs),
        domains=first.domains,
        targets=targets,
        weights=np.concatenate([part.weights for part in parts]),
        tokens=np.concatenate([part.tokens for part in parts]),
        parameters=np.concatenate([part.parameters for part in parts]),
        losses=losses,
        dropped=tuple(line for part in parts for line in part.dropped),
        designs=tuple(designs),
        seeds=tuple(seed for part in parts for seed in part.seeds),
        unique=joined_unique(parts),
        bundle=first.bundle,
    )


def joined_unique(parts: Sequence[RunTable]) -> Array | None:
    """Return the unique tokens of all rows of tables, None where one of them does not know its own."""
    known = [part.unique for part in parts if part.unique is not None]
    return np.concatenate(known) if len(known) == len(parts) else None
