"""Measure a trained model on downstream tasks (lm-evaluation-harness), or its perplexity on any text.

python tools/evaluate.py RUN --tasks lambada,hellaswag,blimp --data FOLDER         the newest checkpoint
python tools/evaluate.py RUN --tasks all --data FOLDER --limit 100 --checkpoint 4000 --output scores.json
python tools/evaluate.py exported --tasks piqa,my_task.yaml --data FOLDER --backend hf
python tools/evaluate.py RUN --text book.txt --stride 256
torchrun --nproc-per-node 8 tools/evaluate.py RUN --tasks all --data FOLDER       requests divided among the ranks

Tasks with documents from --data FOLDER: lambada_openai (lambada), hellaswag, piqa, arc_easy, copa, openbookqa,
winogrande, boolq, six of blimp; all takes them all. Other names, and these without --data, are lm-eval's own tasks,
whose documents come from the Hugging Face hub. Prompts and metrics are those of lm-eval's tasks of the same name.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from autoscale_ds import cli
from autoscale_ds.errors import AutoScaleError
from autoscale_ds.files import check_outputs, write_atomic


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = cli.CommandLine.of(__doc__)
    parser.add_argument("model", type=Path, help="run folder, or Hugging Face folder of tools/export_hf.py")
    parser.add_argument("--tasks", default="", help="names of tasks or paths of task files (.yaml), comma-separated")
    parser.add_argument("--data", type=Path, help="folder with the documents of the tasks")
    parser.add_argument("--text", type=Path, action="append", default=[], help="UTF-8 file; may be given several times")
    parser.add_argument("--stride", type=cli.positive_int, help="tokens a text's window moves (default: context / 2)")
    parser.add_argument("--limit", type=cli.positive_int, help="only so many items of each task")
    parser.add_argument("--batch-size", type=cli.positive_int, default=16, help="rows of a forward pass (default 16)")
    parser.add_argument("--backend", choices=["ours", "hf"], default="ours", help="who scores the tasks (default ours)")
    parser.add_argument("--checkpoint", "--step", type=cli.natural, help="which one of a run (default: the newest)")
    parser.add_argument("--corpus", type=Path, help="where the run's corpus lies now (default: as the run was told)")
    parser.add_argument("--tokenizer", help="tokenizer.json of the model, if it does not lie where it should")
    parser.add_argument("--json", action="store_true", help="print the record instead of tables")
    parser.add_argument("--output", type=Path, help="write the record to this file as well")
    return parser.parse_args()


def main() -> int:
    """Evaluate; ranks other than 0 leave what there is to say to rank 0."""
    arguments = parse_arguments()

    from autoscale_ds.training.distributed import ranks_from_environment
    from autoscale_ds.training.trained import out_of_memory_as_error

    ranks = ranks_from_environment()
    try:
        check_outputs({"--output": arguments.output}, arguments.text)
        with out_of_memory_as_error(f"--batch-size {arguments.batch_size}"):
            _evaluate(arguments, ranks)
    except AutoScaleError:
        if ranks.rank == 0:
            raise
        return 2
    return 0


def _evaluate(arguments: argparse.Namespace, ranks: Any) -> None:
    from autoscale_ds.evaluation import downstream, harness
    from autoscale_ds.training.distributed import join_for_objects, leave_objects
    from autoscale_ds.training.trained import open_trained

    names = [name for name in arguments.tasks.split(",") if name]
    plan = downstream.Plan(
        names,
        arguments.data,
        arguments.text,
        arguments.stride,
        arguments.limit,
        arguments.batch_size,
        arguments.backend,
    )
    tasks = downstream.load(plan, arguments.model, ranks.world_size)
    device = join_for_objects(ranks)
    trained = open_trained(arguments.model, arguments.checkpoint, arguments.corpus, arguments.tokenizer, device)
    total = harness.num_requests(tasks, plan.limit) // ranks.world_size or None
    with cli.counting("evaluating", total, ranks.rank == 0) as count:
        measured = downstream.measure(plan, tasks, trained, ranks, count)
    leave_objects()
    if ranks.rank == 0:
        _write(arguments, downstream.record(plan, trained, measured, ranks))


def _write(arguments: argparse.Namespace, record: dict[str, Any]) -> None:
    text = cli.json_text(record)
    if arguments.output is not None:
        write_atomic(arguments.output, text + "\n")
    if arguments.json:
        print(text)
    else:
        _show(record)


def _show(record: dict[str, Any]) -> None:
    step = "" if record["step"] is None else f", step {record['step']:,}, {record['tokens_seen']:,} tokens"
    screen = cli.console(width=120)
    screen.print(f"{record['model']}{step}, {record['parameters']:,} parameters")
    if record["tasks"]:
        screen.print(_task_table(record["tasks"]))
    if record["texts"]:
        screen.print(_text_table(record["texts"]))
    if record["truncated"]:
        print(f"{record['truncated']:,} requests were longer than the context: their beginning was left out")


def _task_table(tasks: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("task", "version", "items", "metric", "value", "standard error")
    for name, task in tasks.items():
        for metric, figure in task["metrics"].items():
            items = "" if task["items"] is None else f"{task['items']:,}"
            table.add_row(name, task["version"], items, metric, *map(_number, figure.values()))
    return table


def _text_table(texts: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("text", "tokens", "words", "bytes", "perplexity a token", "a word", "bits per byte")
    for path, score in texts.items():
        sizes = [f"{score[name]:,}" for name in ("tokens", "words", "bytes")]
        figures = [_number(score[name]) for name in ("perplexity", "word_perplexity", "bits_per_byte")]
        table.add_row(Path(path).name, *sizes, *figures)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if value < 1e4 else f"{value:.3e}"


if __name__ == "__main__":
    cli.run(main, interrupted=cli.FROM_THE_START, memory_advice="lower --batch-size")
