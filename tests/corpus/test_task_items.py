"""Task targets: items from JSONL files in the forms that evaluation sets come in, and their shards."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import tokenizers
from corpus_helpers import run_tool, sentences, write_jsonl

from autoscale_ds.corpus import Corpus
from autoscale_ds.corpus.tasks import Item, TaskInput, encode_task, read_task
from autoscale_ds.corpus.tokenizers import load_tokenizer
from autoscale_ds.errors import CorpusError

FORMS = [  # as in LAMBADA, HellaSwag, PIQA, ARC, and with letters
    ({"context": "Two and two are", "answer": "four"}, {"prompt": "context", "completion": "answer"}),
    ({"q": "Two and two are", "e": ["five", "four"], "label": 1}, {"prompt": "q", "completion": "e", "gold": "label"}),
    (
        {"goal": "Two and two are", "sol1": "four", "sol2": "five", "label": "0"},
        {"prompt": "goal", "completion": "sol1,sol2", "gold": "label"},
    ),
    (
        {"q": "Two and two are", "choices": {"text": ["one", "four"], "label": ["3", "4"]}, "key": "4"},
        {"prompt": "q", "completion": "choices.text", "gold": "key", "labels": "choices.label"},
    ),
    (
        {"q": "Two and two are", "choices": {"text": ["one", "four"]}, "key": "B"},
        {"prompt": "q", "completion": "choices.text", "gold": "key"},
    ),
]


@pytest.mark.parametrize(("record", "fields"), FORMS)
def test_the_gold_completion_is_found_in_the_forms_that_sets_come_in(tmp_path: Path, record, fields):
    path = tmp_path / "task.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" + json.dumps(record).encode() + b"\n\n"))
    assert read_task(TaskInput(str(path), **fields)) == [Item("Two and two are", "four")]


@pytest.mark.parametrize(
    ("line", "fields", "message"),
    [
        ('{"completion": "x"}', {}, "task.jsonl:2: field 'prompt' is missing; the object has: completion"),
        ('{"prompt": "p", "completion": "  "}', {}, r"task.jsonl:2: the completion \('completion'\) is empty"),
        ('{"prompt": "p", "completion": 3}', {}, "'completion' holds int, expected text"),
        ('{"prompt": null, "completion": "x"}', {}, "'prompt' holds NoneType, expected text"),
        ('{"prompt": "p", "completion": ["a", "b"]}', {}, "gives 2 choices; name the key of the gold one"),
        ('{"prompt": "p", "completion": ["a"], "g": 1}', {"gold": "g"}, "'g' is '1', expected a number from 0 to 0"),
        ('{"prompt": "p", "completion": ["a"], "g": "C"}', {"gold": "g"}, "'g' is 'C', expected a number"),
        ('{"prompt": "p", "completion": "\\ud800"}', {}, "lone surrogate"),
        ("nothing", {}, "task.jsonl:2: not valid JSON"),
        ("[1]", {}, "task.jsonl:2: the line holds list, expected an object"),
    ],
)
def test_a_line_that_is_no_item_is_named_with_the_reason(tmp_path: Path, line, fields, message):
    good = {"prompt": "p", "completion": ["a"], "g": 0} if fields else {"prompt": "p", "completion": "a"}
    (tmp_path / "task.jsonl").write_text(f"{json.dumps(good)}\n{line}\n")
    with pytest.raises(CorpusError, match=message):
        read_task(TaskInput(str(tmp_path / "task.jsonl"), **fields))


def test_files_without_items_are_refused(tmp_path: Path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(CorpusError, match="holds no item"):
        read_task(TaskInput(str(tmp_path / "empty.jsonl")))
    with pytest.raises(CorpusError, match=r"cannot read .*: No such file"):
        read_task(TaskInput(str(tmp_path / "none.jsonl")))


def test_items_are_encoded_whole_and_cut_where_the_prompt_alone_ends(tokenizer_folder: Path):
    items = [Item("The cat sat on", "the mat."), Item("A dog  ", "barks"), Item("", "Nothing before.")]
    tokenizer = load_tokenizer(str(tokenizer_folder))
    documents = encode_task(items, TaskInput("file"), tokenizer)
    plain = tokenizers.Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    for (prompt, completion), start, rest in zip(items, documents[::2], documents[1::2], strict=True):
        whole = plain.encode(f"{prompt} {completion}").ids
        alone = plain.encode(prompt.rstrip()).ids
        assert start.tolist() == (alone or [tokenizer.info.end_of_document])
        assert rest.tolist() == whole[len(alone) :]


def test_a_corpus_holds_its_tasks_and_checks_them(tmp_path: Path, tokenizer_folder: Path):
    web = write_jsonl(tmp_path / "web.jsonl", sentences(20, "web"))
    (tmp_path / "task.jsonl").write_text("".join(json.dumps({"q": t, "a": "naïve"}) + "\n" for t in sentences(7, "q")))
    options = ("--output", tmp_path / "out", "--tokenizer", tokenizer_folder, "--domain", f"web={web}")
    task = ("--task-target", f"quiz={tmp_path / 'task.jsonl'}", "--prompt-field", "q", "--completion-field", "a")
    result = run_tool(*options, *task)
    assert result.returncode == 0, result.stderr
    assert "quiz (task)" in result.stdout
    corpus = Corpus(tmp_path / "out")
    texts, sizes = corpus.store("quiz", "validation").shards
    assert (texts.num_documents, sizes.tokens.tolist()) == (14, [6] * 7)
    assert corpus.bytes_per_token("quiz", "validation") == pytest.approx(6 / len(texts.document(1)))
    assert corpus.domains == ["web"]
    assert all(corpus.verify(shard) is None for shard in corpus.manifest.shards())
    assert "was complete already" in run_tool(*options, *task).stdout

    with open(tmp_path / "task.jsonl", "a") as file:
        file.write(json.dumps({"q": "more", "a": "text"}) + "\n")
    assert "the input files of quiz changed" in run_tool(*options, *task).stderr
    assert run_tool(*options, *task, "--overwrite").returncode == 0
    assert Corpus(tmp_path / "out").store("quiz", "validation").shards[0].num_documents == 16
    assert run_tool(*options, "--overwrite").returncode == 0
    assert not (tmp_path / "out" / "quiz").exists()
    lone = run_tool(*options, "--gold-field", "x")
    assert (lone.returncode, "--gold-field describes a --task-target" in lone.stderr) == (2, True)
