"""``tools/evaluate.py``: its record and tables, several ranks, and what it says to a user's mistake."""

import json
import os

import pytest
import torch
import yaml
from forked import ForkedProcess
from jobs import ROOT, free_port, tool
from tiny_data import DOCUMENTS, LONG, write_documents
from tiny_models import text_corpus

pytest.importorskip("lm_eval", reason="needs lm-eval (pip install 'autoscale_ds[eval]')")

from autoscale_ds.errors import ConfigError, CorpusError
from autoscale_ds.evaluation import downstream, harness
from autoscale_ds.evaluation.harness import load_tasks
from autoscale_ds.evaluation.lm_adapter import ScorerLM
from autoscale_ds.training.trained import out_of_memory_as_error


@pytest.fixture
def run(make_trainer, tmp_path):
    """A run of two steps on text."""
    corpus = text_corpus(tmp_path / "text")
    weights = {"web": 0.5, "code": 0.5}
    trainer = make_trainer(budget_tokens=2 * 256, **{"data.corpus": str(corpus), "mixture.weights": weights})
    assert trainer.fit() == 0
    return trainer.folder.path


@pytest.mark.slow
def test_a_run_is_measured_and_the_record_says_what_was(run, data, tmp_path):
    (tmp_path / "book.txt").write_text(LONG * 3)
    options = ["--data", data, "--text", tmp_path / "book.txt", "--output", tmp_path / "scores.json"]
    done = tool("evaluate.py", run, "--tasks", "lambada,blimp,boolq", *options, "--limit", 1)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "blimp_passive_1" in done.stdout
    assert "book.txt" in done.stdout
    record = json.loads((tmp_path / "scores.json").read_text())
    assert (record["step"], record["tokens_seen"], record["limit"]) == (2, 512, 1)
    assert len(record["tasks"]) == 8
    assert record["tasks"]["boolq"]["version"] == "2.0"
    assert record["tasks"]["boolq"]["items"] == 1
    assert set(record["tasks"]["lambada_openai"]["metrics"]) == {"perplexity", "acc"}
    (text,) = record["texts"].values()
    assert text["bytes"] == len(LONG * 3)
    assert record["lm_eval"] == harness.lm_eval_version()


@pytest.mark.slow
def test_both_backends_and_two_ranks_give_the_same_record(folder, data, tmp_path):
    options = [str(folder), "--tasks", "copa,boolq,lambada", "--data", str(data), "--json"]
    records = [json.loads(tool("evaluate.py", *options, *more).stdout) for more in ([], ["--backend", "hf"])]
    first, second = on_two_ranks(tmp_path, "evaluate.py", options)
    records.append(json.loads(first))
    assert second == ""
    assert [record["ranks"] for record in records] == [1, 1, 2]
    assert [record["truncated"] for record in records] == [3, None, 3]
    for record in records[1:]:
        for name, task in record["tasks"].items():
            for metric, figure in task["metrics"].items():
                assert figure["value"] == pytest.approx(records[0]["tasks"][name]["metrics"][metric]["value"], rel=1e-4)


def on_two_ranks(folder, name, options):
    """Run a tool on two ranks, as torchrun starts it; return what each wrote."""
    port, ranks = str(free_port()), []
    for rank in ("0", "1"):
        env = os.environ | {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_PORT": port}
        env["MASTER_ADDR"] = "127.0.0.1"
        ranks.append(ForkedProcess([str(ROOT / "tools" / name), *options], env, folder / f"rank{rank}.log"))
    try:
        codes = [rank.wait(100) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    texts = [(folder / f"rank{rank}.log").read_text() for rank in (0, 1)]
    assert codes == [0, 0], texts
    return texts


def broken_task(folder, **changes):
    """Write a task file with some settings changed (None: left out); return its path."""
    settings = {
        "task": "mine",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": "piqa_valid.jsonl"}},
        "output_type": "multiple_choice",
        "validation_split": "validation",
        "doc_to_text": "{{goal}}",
        "doc_to_target": 0,
        "doc_to_choice": "{{[sol1, sol2]}}",
    }
    settings = {name: value for name, value in {**settings, **changes}.items() if value is not None}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_a_task_file_of_ones_own_is_used(folder, data, tmp_path, ours):
    path = broken_task(tmp_path, dataset_kwargs={"data_files": {"validation": "piqa_valid.jsonl.gz"}})
    (result,) = harness.run_tasks(ours, load_tasks([path], data))
    assert (result.task, result.items) == ("mine", 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": None}, "lacks 'task'"),
        ({"doc_to_target": None}, "lacks 'doc_to_target'"),
        ({"doc_to_text": "{{goals}}"}, "task mine of .* cannot be used: UndefinedError: 'goals' is undefined"),
        ({"dataset_kwargs": {"data_files": {"validation": "none.jsonl"}}}, "none.jsonl does not exist"),
        ({"dataset_kwargs": {"data_files": "piqa_valid.jsonl"}}, "lacks dataset_kwargs.data_files"),
        ({"metadata": {"labels": "short.lst"}}, "short.lst has 2 labels for 3 documents"),
        ({"metadata": {"labels": "words.lst"}}, "words.lst, line 2 is 'b', expected the number"),
        ({"validation_split": "train"}, "cannot be used"),
    ],
)
def test_a_task_file_that_cannot_be_used_is_refused(changes, message, tmp_path):
    write_documents(tmp_path / "piqa_valid.jsonl", DOCUMENTS["piqa_valid.jsonl.gz"])
    (tmp_path / "short.lst").write_text("0\n1\n")
    (tmp_path / "words.lst").write_text("0\nb\n1\n")
    with pytest.raises(ConfigError, match=message) as error:
        load_tasks([broken_task(tmp_path, **changes)], tmp_path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no item"),
        (b'{"goal": "g", "sol1": "a", "sol2": "b"}\n{"goal"', ":2: not valid JSON"),
        (b"[1]\n", ":1: the line holds list"),
        (b'{"goal": "g", "sol1": "a"}\n', ":1: field 'sol2' is missing; the object has: goal, sol1"),
        (b"\xff\xfe", ":1: invalid UTF-8"),
    ],
)
def test_damaged_documents_are_refused(content, message, tmp_path):
    (tmp_path / "piqa_valid.jsonl").write_bytes(content)
    with pytest.raises(CorpusError, match=message) as error:
        load_tasks(["piqa"], tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_an_unknown_task_and_one_whose_documents_cannot_be_had_are_refused(monkeypatch):
    """With an index of two tasks: making lm-eval's own takes ten seconds."""

    class Manager:
        task_index = all_tasks = ("hellaswag", "mmlu")

        def load(self, names):
            raise ConnectionError("Couldn't reach the hub\nafter 5 retries")

    monkeypatch.setattr("lm_eval.tasks.TaskManager", Manager)
    monkeypatch.setattr(harness, "hub_obstacle", lambda: None)
    with pytest.raises(ConfigError, match="there is no task 'helaswag'; did you mean hellaswag"):
        load_tasks(["helaswag"], None)
    with pytest.raises(ConfigError, match=r"ConnectionError: Couldn't reach the hub\); take one of arc_easy"):
        load_tasks(["mmlu"], None)
    with pytest.raises(ConfigError, match="give them with --data FOLDER"):
        load_tasks(["hellaswag"], None)


def test_too_little_gpu_memory_names_the_setting_to_lower():
    with (
        pytest.raises(ConfigError, match=r"did not suffice \(CUDA out of memory\); lower --batch-size 16"),
        out_of_memory_as_error("--batch-size 16"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_without_lm_eval_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'autoscale_ds\[eval\]'"):
        load_tasks(["copa"], None)


def test_a_task_that_asks_for_random_samples_is_refused(ours):
    from lm_eval.api.instance import Instance

    request = Instance("generate_until", {}, ("The", {"do_sample": True}), 0, metadata=("mine", 0, 1))
    with pytest.raises(ConfigError, match="task mine asks for random samples"):
        ScorerLM.generate_until(ours, [request])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to measure; give --tasks NAME,NAME or --text FILE"),
        (["--tasks", "copa", "--data", "/no/such/folder"], "--data /no/such/folder is no folder"),
        (["--text", "/no/such/text"], "text /no/such/text cannot be read"),
        (["--text", "{text}", "--stride", "65"], "the stride is 65, expected 1 to 64"),
        (["--tasks", "copa", "--data", "{data}", "--checkpoint", "3"], "it has no checkpoints"),
    ],
)
def test_a_users_mistake_is_one_line(options, message, folder, data, tmp_path):
    (tmp_path / "text").write_text("The river.")
    done = tool("evaluate.py", folder, *(each.format(data=data, text=tmp_path / "text") for each in options))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert message in done.stderr


def test_lm_evals_backend_is_for_hugging_face_folders_on_one_rank(folder, tmp_path):
    with pytest.raises(ConfigError, match="works on one rank, 2 were started"):
        downstream.load(downstream.Plan(("copa",), backend="hf"), folder, world_size=2)
    with pytest.raises(ConfigError, match=r"tools/export_hf\.py writes it"):
        downstream.load(downstream.Plan(("copa",), backend="hf"), tmp_path)
