"""Task targets: prompts and the completions whose bits per byte are measured in training.

A task lies in the corpus as two shards. In the first, prompts and completions take turns: document ``2 i`` is the
prompt of item ``i``, document ``2 i + 1`` its gold completion, both without an end-of-document token. The second is one
document: the UTF-8 sizes of the completions. So a corpus is moved, checked and replaced with its tasks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from autoscale_ds.corpus.documents import RefusedRecord, printable
from autoscale_ds.corpus.fields import value_of
from autoscale_ds.corpus.indexed import IndexedWriter
from autoscale_ds.corpus.json_lines import read_json_lines
from autoscale_ds.corpus.manifest import ShardInfo
from autoscale_ds.corpus.tokenizers import TextTokenizer
from autoscale_ds.errors import CorpusError

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class TaskInput:
    """Where the items of a task come from.

    Attributes
    ----------
    path : str
        A JSONL file, possibly compressed; one item a line.
    prompt : str
        Key of the prompt; dots descend into objects.
    completion : str
        Key of the completion, or of the list of choices; several keys with commas between them are the choices.
    gold : str or None
        Key of the gold choice: its number, counted from 0, or its letter. None where there is one completion.
    labels : str or None
        Key of a list of the choices' labels, where ``gold`` holds one of those.
    delimiter : str
        Stands between prompt and completion. Its bytes do not count.
    """

    path: str
    prompt: str = "prompt"
    completion: str = "completion"
    gold: str | None = None
    labels: str | None = None
    delimiter: str = " "


class Item(NamedTuple):
    """A prompt and its gold completion."""

    prompt: str
    completion: str


def read_task(source: TaskInput) -> list[Item]:
    """Return the items of a task file.

    Raises
    ------
    CorpusError
        For a file that cannot be read or has no item, or an item whose fields are missing or empty; names the line.
    """
    return read_json_lines(source.path, lambda record: _item(record, source))


def _item(record: Any, source: TaskInput) -> Item:
    keys = [key.strip() for key in source.completion.split(",")]
    values = [value_of(record, key) for key in keys]
    choices = values[0] if len(keys) == 1 and isinstance(values[0], list) else values
    if source.gold is None and (len(keys) > 1 or choices is not values):
        raise RefusedRecord(f"{source.completion!r} gives {len(choices)} choices; name the key of the gold one (gold)")
    gold = 0 if source.gold is None else _gold(record, source, len(choices))
    prompt, completion = value_of(record, source.prompt), choices[gold]
    for key, text in ((source.prompt, prompt), (source.completion, completion)):
        if not isinstance(text, str):
            raise RefusedRecord(f"{key!r} holds {type(text).__name__}, expected text")
        text.encode()  # JSON can spell what UTF-8 cannot
    if not completion.strip():
        raise RefusedRecord(f"the completion ({source.completion!r}) is empty")
    return Item(prompt, completion)


def _gold(record: Any, source: TaskInput, count: int) -> int:
    assert source.gold is not None
    gold = value_of(record, source.gold)
    if source.labels is None:
        return _index(gold, count, source.gold)
    labels = value_of(record, source.labels)
    if not isinstance(labels, list) or len(labels) != count or gold not in labels:
        raise RefusedRecord(f"{source.gold!r} is {gold!r}, expected one of the {count} labels: {str(labels)[:80]}")
    return labels.index(gold)


def _index(gold: Any, count: int, key: str) -> int:
    index = _LETTERS.index(gold) if isinstance(gold, str) and len(gold) == 1 and gold in _LETTERS else gold
    try:
        index = int(index)
    except (TypeError, ValueError):
        index = -1
    if not 0 <= index < count:
        raise RefusedRecord(
            f"{key!r} is {str(gold)[:40]!r}, expected a number from 0 to {count - 1} or a letter; where it is a label, "
            "name the key of the labels"
        )
    return index


def encode_task(items: Sequence[Item], source: TaskInput, tokenizer: TextTokenizer) -> list[npt.NDArray[Any]]:
    """Return prompts and completions as ids, taking turns.

    Prompt, delimiter and completion are encoded together and cut where the prompt alone ends; spaces at the end of the
    prompt go with the completion. This is how lm-evaluation-harness does it. An empty prompt is the token that ends
    documents, as at the beginning of a text.
    """
    stripped = [item.prompt.rstrip() for item in items]
    prompts = _encoded(stripped, source, tokenizer)
    wholes = _encoded([item.prompt + source.delimiter + item.completion for item in items], source, tokenizer)
    documents = []
    for number, (prompt, whole) in enumerate(zip(prompts, wholes, strict=True), 1):
        if len(whole) <= len(prompt):
            raise CorpusError(f"{printable(source.path)}: item {number}: the completion adds no token to its prompt")
        start = prompt if len(prompt) else np.array([tokenizer.info.end_of_document])
        documents += [start, whole[len(prompt) :]]
    return documents


def _encoded(texts: Sequence[str], source: TaskInput, tokenizer: TextTokenizer) -> list[npt.NDArray[Any]]:
    ids, refused = tokenizer.texts(texts)
    if refused:
        place = min(refused)
        raise CorpusError(f"{printable(source.path)}: item {place + 1}: {refused[place]}")
    return ids


def write_task(folder: Path, name: str, source: TaskInput, tokenizer: TextTokenizer) -> tuple[ShardInfo, ShardInfo]:
    """Read, encode and write a task's shards below a folder: its items, and the sizes of the completions."""
    items = read_task(source)
    sizes = np.array([len(item.completion.encode()) for item in items], np.int32)
    documents = encode_task(items, source, tokenizer)
    first, second = task_prefixes(name)
    (folder / name).mkdir(parents=True, exist_ok=True)
    return (
        _write(folder, first, documents, tokenizer.dtype, int(sizes.sum())),
        _write(folder, second, [sizes], np.dtype("<i4"), 0),
    )


def _write(
    folder: Path, prefix: str, documents: Sequence[npt.NDArray[Any]], dtype: np.dtype, text_bytes: int
) -> ShardInfo:
    with IndexedWriter(folder / prefix, dtype) as writer:
        for document in documents:
            writer.add_document(document)
    return ShardInfo(prefix, writer.num_tokens, writer.num_documents, text_bytes, writer.sha256_bin, writer.sha256_idx)


def task_prefixes(name: str) -> tuple[str, str]:
    """Return the prefixes of a task's shards in the corpus folder."""
    return f"{name}/validation-00000", f"{name}/validation-00001"


def task_digests(tasks: Mapping[str, TaskInput]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names with files, bytes and a digest of (path, size, time of change), as ``folder.digests`` has of text."""
    for name, source in tasks.items():
        try:
            status = os.stat(source.path)
        except OSError as error:
            raise CorpusError(f"cannot read {printable(source.path)}: {error.strerror}") from None
        state = json.dumps({source.path: (status.st_size, str(status.st_mtime_ns))})
        yield name, {"files": 1, "bytes": status.st_size, "digest": hashlib.sha256(state.encode()).hexdigest()}
