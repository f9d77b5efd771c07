#!/usr/bin/env python3
r"""Train many small runs: plan them, share them out among workers, collect what they reached.

Examples:
  # AutoScale's 2m + 1 runs at two scales, the base with 5 seeds, everything else with 2
  python launch/sweep.py plan sweeps/small --config launch/configs/micro.yaml \
      --deepspeed_config ds_configs/zero1_cpu.json --kind ddo --tokens 1e6,2e6 --seeds 2 --base-seeds 5
  # more runs for the same sweep: interior mixtures, named mixtures, designs of fit_mixture.py
  python launch/sweep.py plan sweeps/small --kind dirichlet --runs 16 --tokens 1e6
  python launch/sweep.py plan sweeps/small --mixture uniform --mixture mine=weights.json --tokens 8e6 --seeds 3
  python launch/sweep.py plan sweeps/small --designs plan.json
  # probes that repeat small domains as often as the run of 80M tokens will
  python launch/sweep.py plan sweeps/matched --config launch/configs/micro.yaml \
      --deepspeed_config ds_configs/zero1_cpu.json --kind dirichlet --runs 16 --tokens 2e6 --match-repetition 80e6

  # a search: a first batch by D-optimal design, then the runs that tell most, until enough is known
  python launch/sweep.py plan sweeps/search --config launch/configs/micro.yaml --target-tokens 1e9 \
      --deepspeed_config ds_configs/zero1_cpu.json --kind d-optimal --runs 8 --tokens 2e6,4e6
  while python launch/sweep.py work sweeps/search && python launch/sweep.py next sweeps/search --runs 4; do :; done

  # domains came or changed: the others keep the proportions that an earlier sweep found
  python launch/sweep.py plan sweeps/second --config launch/configs/micro.yaml --corpus corpora/more \
      --deepspeed_config ds_configs/zero1_cpu.json --kind d-optimal --runs 6 --tokens 2e6 \
      --reuse sweeps/search --reuse-weights decided.json

  python launch/sweep.py work sweeps/small                 # one worker; start as many as you like, anywhere, any time
  python launch/sweep.py work sweeps/small --workers 2     # two on this machine, cores or GPUs shared out
  sbatch --array=0-15 launch/slurm/sweep.sbatch sweeps/small
  python launch/sweep.py status sweeps/small
  python launch/sweep.py collect sweeps/small              # writes sweeps/small/runs.parquet

A worker that is stopped or killed, even with SIGKILL, loses nothing but the steps since the last checkpoint of its run:
another worker, or the same command, goes on from there. Any value of the configuration can be overridden as key=value
when the sweep is planned first. A weight is a share of training tokens, not of documents.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.table import Table

from autoscale_ds import cli
from autoscale_ds.errors import TrainingError
from autoscale_ds.search import design
from autoscale_ds.stream.spec import share_in_words
from autoscale_ds.sweep.local_workers import run_workers
from autoscale_ds.sweep.plan import SweepPlan, tokens_label
from autoscale_ds.sweep.planning import PlanRequest, make_plan
from autoscale_ds.sweep.progress import forget_failures, in_one_line, seconds_left, survey
from autoscale_ds.sweep.progress_bar import SweepBar
from autoscale_ds.sweep.results import TABLE_FILE, collect, search_cost
from autoscale_ds.training import launchers

console = cli.console(stderr=True)


# -- plan -------------------------------------------------------------------------------------------------------


def plan(a: argparse.Namespace) -> int:
    """Make a sweep, or add runs to one."""
    request = PlanRequest(**{field.name: getattr(a, field.name) for field in fields(PlanRequest)})
    whole, added = make_plan(request)
    whole.write(a.sweep)
    say_plan(whole, added, a.sweep)
    return 0


def say_plan(whole: SweepPlan, added: int, sweep: Path) -> None:
    """Print what was planned and what it costs."""
    console.print(f"{sweep}: {len(whole.runs)} runs ({added} new)", soft_wrap=True)
    table = Table()
    for name in ("scale", "mixtures", "runs", "tokens", "draws from"):
        table.add_column(name, justify="right")
    for scale in sorted({run.scale for run in whole.runs}):
        runs = [run for run in whole.runs if run.scale == scale]
        mixtures = str(len({run.design for run in runs}))
        tokens, drawn = tokens_label(sum(run.tokens for run in runs)), share_in_words(whole.window_share(scale))
        table.add_row(tokens_label(scale), mixtures, str(len(runs)), tokens, drawn)
    console.print(table)
    total = sum(run.tokens for run in whole.runs)
    share = f", {total / whole.target.tokens:.3g} times the target run's" if whole.target.tokens else ""
    end = f"{tokens_label(total)} tokens in all{share}; next: python launch/sweep.py work {sweep}"
    console.print(end, soft_wrap=True)


# -- work -------------------------------------------------------------------------------------------------------


def work(a: argparse.Namespace) -> int:
    """Train runs until none is left."""
    if a.retry_failed:
        forget_failures(a.sweep, SweepPlan.read(a.sweep))
    if a.workers > 1:
        return supervise(a)
    from autoscale_ds.training.distributed import ranks_from_environment
    from autoscale_ds.training.engine import start_distributed, stop_distributed

    SweepPlan.read(a.sweep)  # before DeepSpeed takes its seconds to load
    launchers.fill_environment()
    rank = int(os.environ.get("RANK", "0"))
    from autoscale_ds.sweep.worker import Worker

    with SweepBar(a.sweep, console, quiet=a.quiet or rank > 0) as bar:
        ranks = ranks_from_environment()
        device = start_distributed(ranks)
        try:
            worker = Worker(a.sweep, ranks, device, a.lease_seconds, lambda run, record: bar.refresh(), a.corpus)
            code = worker.work()
        finally:
            stop_distributed()
    return code or (report_failures(a.sweep) if rank == 0 else 0)


def supervise(a: argparse.Namespace) -> int:
    """Start several workers on this machine and show the progress of all."""
    SweepPlan.read(a.sweep)
    command = [sys.executable, __file__, "work", str(a.sweep), "--quiet", "--lease-seconds", str(a.lease_seconds)]
    command += ["--corpus", str(a.corpus)] if a.corpus else []
    with SweepBar(a.sweep, console, quiet=a.quiet) as bar:
        code = run_workers(command, a.workers, a.sweep / "logs", bar.refresh)
    if not code:
        refuse_unfinished(a.sweep)
    return code or report_failures(a.sweep)


def refuse_unfinished(sweep: Path) -> None:
    """Raise TrainingError when workers ended although runs are left: they could not even begin, say."""
    left = sum(state.state in ("waiting", "stopped") for state in survey(sweep, SweepPlan.read(sweep)))
    if left:
        newest = max((sweep / "logs").glob("*.log"), key=lambda path: path.stat().st_mtime)
        last = next((line for line in reversed(newest.read_text(errors="replace").splitlines()) if line.strip()), "")
        raise TrainingError(f"the workers ended with {left} runs left ({last.strip()}); see {newest}")


# -- what is shown at the end -----------------------------------------------------------------------------------


def report_failures(sweep: Path) -> int:
    """Say which runs failed; return 1 when some did."""
    failed = [state for state in survey(sweep, SweepPlan.read(sweep)) if state.state == "failed"]
    for state in failed:
        console.print(f"failed: {state.run.run}: {state.note}", style="red", soft_wrap=True)
    if failed:
        console.print(f"mend the cause, then: python launch/sweep.py work {sweep} --retry-failed", soft_wrap=True)
    return 1 if failed else 0


# -- status and collect -----------------------------------------------------------------------------------------


def status(a: argparse.Namespace) -> int:
    """Show how far a sweep is."""
    states = survey(a.sweep, SweepPlan.read(a.sweep))
    if a.json:
        rows = [{"run": s.run.run, "state": s.state, "tokens": s.tokens, "note": s.note} for s in states]
        print(cli.json_text({"runs": rows, "seconds_left": seconds_left(states)}))
        return 0
    table = Table(title=str(a.sweep))
    for name in ("run", "state", "tokens", "of", "tokens/s", ""):
        table.add_column(name, justify="right" if name in ("tokens", "of", "tokens/s") else "left")
    for s in states:
        if a.all or s.state in ("running", "stopped", "failed"):
            speed = f"{s.tokens_per_second:,.0f}" if s.tokens_per_second else ""
            table.add_row(s.run.run, s.state, tokens_label(s.tokens), tokens_label(s.run.tokens), speed, s.note)
    if table.row_count:
        cli.console().print(table)
    print(in_one_line(states))
    return 0


def collect_(a: argparse.Namespace) -> int:
    """Write runs.parquet from the finished runs."""
    whole = SweepPlan.read(a.sweep)
    rows = collect(a.sweep, whole)
    cost = search_cost(whole, rows)
    share = f", {cost['share_of_target_tokens']:.3g} times the target run's" if "share_of_target_tokens" in cost else ""
    print(f"{a.sweep / TABLE_FILE}: {len(rows)} points of {cost['runs']} finished runs of {len(whole.runs)}")
    print(f"search cost so far: {tokens_label(cost['tokens'])} tokens{share}, {cost['flops']:.3g} FLOPs")
    return 0


# -- next -------------------------------------------------------------------------------------------------------


def next_(a: argparse.Namespace) -> int:
    """Add the runs that tell most about the best mixture for their cost; exit code 3 when enough is known."""
    from autoscale_ds.sweep.searching import SEARCH_OVER, SearchRequest, find_next

    found = find_next(SearchRequest(**{field.name: getattr(a, field.name) for field in fields(SearchRequest)}))
    if found.added and not a.dry_run:
        found.plan.write(a.sweep)
    if a.json:
        print(cli.json_text(found.as_dict()))
    else:
        say_next(found, a)
    return 0 if found.added else SEARCH_OVER


def say_next(found: Any, a: argparse.Namespace) -> None:
    """Print what is believed, and the runs that were added or why none were."""
    advice = found.advice
    waiting = f" ({found.pending} planned runs have no result yet and count as made)" if found.pending else ""
    print(
        f"best mixture now: expected gain over {a.against} {advice.gain:.2g}, expected regret {advice.regret:.2g}, "
        f"noise of one run {advice.noise:.2g}{waiting}"
    )
    print("  " + "  ".join(f"{name} {weight:.3f}" for name, weight in advice.best.items()))
    if not found.added:
        print(f"{found.over}; next: python launch/sweep.py collect {a.sweep}, then tools/fit_mixture.py fit and decide")
        return
    table = Table()
    for name in ("run", "tokens", "lowers the regret by", "weights"):
        table.add_column(name)
    for run, worth in zip(found.added, advice.worth, strict=False):
        weights = "  ".join(f"{name} {weight:.2f}" for name, weight in run.weights.items() if weight >= 0.005)
        table.add_row(run.run, tokens_label(run.tokens), f"{worth:.2g}", weights)
    cli.console().print(table)
    print("not added (--dry-run)" if a.dry_run else f"added; next: python launch/sweep.py work {a.sweep}")


# -- command line -----------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = cli.CommandLine(description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, (function, options) in COMMANDS.items():
        sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(command=function)
        sub.add_argument("sweep", type=Path, help="sweep folder")
        options(sub)
    return top


def _plan_options(s: argparse.ArgumentParser) -> None:
    s.set_defaults(overrides=[])  # key=value may stand anywhere, see main()
    s.epilog = (
        "key=value, anywhere: over a value of --config, when the sweep is planned first; model.layers=4 for example"
    )
    s.add_argument(
        "--config", help="what is learned: a YAML file, see launch/configs/; its warm-up scales with budgets"
    )
    s.add_argument("--deepspeed_config", help="how the hardware does it: a JSON file, see ds_configs/")
    s.add_argument("--corpus", type=Path, metavar="DIR", help="where the corpus lies (default: as configured)")
    s.add_argument("--tokens", type=_budgets, default=(), metavar="T[,T…]", help="budgets, tokens: one scale each")
    s.add_argument("--kind", choices=design.KINDS, default="ddo", help="which mixtures (default: ddo)")
    s.add_argument("--runs", type=cli.positive_int, metavar="K", help="number of mixtures at each budget; not for ddo")
    s.add_argument(
        "--mixture", action="append", dest="mixtures", default=[], metavar="NAME[=WEIGHTS]", help=MIXTURE_HELP
    )
    s.add_argument(
        "--designs",
        action="append",
        default=[],
        metavar="FILE",
        help="a plan of fit_mixture.py design; may be repeated",
    )
    s.add_argument("--prior", metavar="WEIGHTS", help="base mixture: uniform (default), proportional, or weights.json")
    s.add_argument("--low", type=cli.real(least=0), default=1 / 3, help="ddo: factor of the low runs (default: 1/3)")
    s.add_argument("--high", type=cli.positive, default=3.0, help="ddo: factor of the high runs (default: 3)")
    s.add_argument("--floor", type=cli.share, default=0.0, help="dirichlet, axis: smallest weight (default: 0)")
    s.add_argument(
        "--design-seed", type=cli.natural, default=0, help="dirichlet: which mixtures are drawn (default: 0)"
    )
    s.add_argument(
        "--evaluations", type=cli.positive_int, metavar="N", help="validations a run, the last at its end (default: 4)"
    )
    _seed_options(s)
    _target_options(s)


def _seed_options(s: argparse.ArgumentParser) -> None:
    s.add_argument(
        "--seeds",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="train every mixture with seeds 0 .. N-1 (default: 1)",
    )
    s.add_argument("--first-seed", type=cli.natural, default=0, metavar="K", help="seeds K .. K+N-1 instead")
    s.add_argument("--base-seeds", type=cli.natural, default=0, metavar="N", help="more seeds for the base: the noise")


def _target_options(s: argparse.ArgumentParser) -> None:
    """Add what ties a sweep to the run it is for, and to an earlier sweep."""
    s.add_argument(
        "--target-tokens", type=cli.positive, help="budget of the run this sweep is for, to tell the search's cost"
    )
    s.add_argument("--target-parameters", type=cli.positive, help="size of that run")
    s.add_argument(
        "--match-repetition",
        type=cli.positive,
        metavar="TOKENS",
        help="let every run repeat its text as a run of that many tokens would: draw it from scale / TOKENS of the "
        "windows of every domain",
    )
    s.add_argument(
        "--reuse",
        type=Path,
        metavar="OLD_SWEEP",
        help="keep the proportions of domains whose text is that of this sweep, so that runs are planned only for what "
        "changed; needs --reuse-weights",
    )
    s.add_argument("--reuse-weights", type=Path, metavar="WEIGHTS", help="the optimum found with that sweep")


def _budgets(text: str) -> list[float]:
    return [cli.positive(part) for part in text.split(",")]


MIXTURE_HELP = "a mixture to train as it is: uniform, proportional, or NAME=weights.json; may be repeated"


def _work_options(s: argparse.ArgumentParser) -> None:
    s.add_argument(
        "--workers",
        type=cli.whole(1, 4096),
        default=1,
        metavar="N",
        help="start N workers on this machine (default: 1)",
    )
    s.add_argument("--corpus", type=Path, metavar="DIR", help="where the corpus lies now (default: as planned)")
    s.add_argument(
        "--lease-seconds", type=cli.positive, default=120.0, help="a worker elsewhere silent for so long is dead"
    )
    s.add_argument("--retry-failed", action="store_true", help="try failed runs again")
    s.add_argument("--quiet", action="store_true", help="no progress bar")
    s.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)


def _next_options(s: argparse.ArgumentParser) -> None:
    s.add_argument("--runs", type=cli.positive_int, default=4, metavar="K", help="how many runs to add (default: 4)")
    s.add_argument(
        "--objective", metavar="KIND", help="what is minimised: mean-loss (default), another kind, or targets.json"
    )
    s.add_argument(
        "--against", default="uniform", metavar="WEIGHTS", help="what one would train otherwise (default: uniform)"
    )
    s.add_argument(
        "--tokens", type=_budgets, default=(), metavar="T[,T…]", help="budgets of runs (default: as planned)"
    )
    s.add_argument(
        "--target-tokens", type=cli.positive, help="budget of the run the mixture is for (default: as planned)"
    )
    s.add_argument("--target-parameters", type=cli.positive, help="size of that run")
    s.add_argument("--corpus", type=Path, metavar="DIR", help="where the corpus lies now (default: as planned)")
    s.add_argument("--floor", type=cli.share, default=0.0, help="smallest weight of any mixture (default: 0)")
    s.add_argument(
        "--law", action="append", dest="laws", default=[], metavar="NAME", help="law to judge by; may be repeated"
    )
    s.add_argument(
        "--stop-share",
        type=cli.share,
        default=0.1,
        help="enough is known when the expected regret is below this share of the expected gain, or below the noise of "
        "one run (default: 0.1)",
    )
    s.add_argument(
        "--max-share", type=cli.positive, metavar="S", help="the sweep may cost this share of the target run at most"
    )
    s.add_argument("--seed", type=cli.natural, default=0, help="of draws (default: 0)")
    s.add_argument("--dry-run", action="store_true", help="only say what would be added")
    s.add_argument("--json", action="store_true", help="for machines")


def _status_options(s: argparse.ArgumentParser) -> None:
    s.add_argument("--all", action="store_true", help="list finished and waiting runs too")
    s.add_argument("--json", action="store_true", help="for machines")


COMMANDS: Mapping[str, tuple[Any, Any]] = {
    "plan": (plan, _plan_options),
    "work": (work, _work_options),
    "status": (status, _status_options),
    "collect": (collect_, lambda s: None),
    "next": (next_, _next_options),
}


def main() -> int:
    """Run one command."""
    command_line = parser()
    arguments, rest = command_line.parse_known_args()
    unknown = [text for text in rest if text.startswith("-") or "=" not in text or arguments.command is not plan]
    if unknown:
        command_line.error(f"unrecognized argument {unknown[0]}")
    if rest:
        arguments.overrides = rest
    return int(arguments.command(arguments))


if __name__ == "__main__":
    cli.run(main, tear_down=False, memory_advice="start fewer --workers")
