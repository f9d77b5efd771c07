"""Task files of lm-eval's format with data from a local folder, checked before a model reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoscale_ds.corpus.documents import RefusedRecord, first_line_of
from autoscale_ds.corpus.json_lines import read_json_lines
from autoscale_ds.errors import ConfigError

TASK_FOLDER = Path(__file__).parent / "tasks"
_SUFFIX = ".gz"


def shipped_tasks() -> dict[str, Path]:
    """Return the task files of this package by task name."""
    return {path.stem: path for path in sorted(TASK_FOLDER.glob("*.yaml")) if not path.stem.startswith("_")}


def expand(names: list[str]) -> list[str]:
    """Return task names with groups replaced: ``all`` shipped tasks, ``blimp`` those of it, ``lambada`` for one."""
    known = list(shipped_tasks())
    groups = {
        "all": known,
        "blimp": [name for name in known if name.startswith("blimp_")],
        "lambada": ["lambada_openai"],
    }
    return list(dict.fromkeys(each for name in names for each in groups.get(name, [name])))


def local_task(path: Path, data: Path) -> dict[str, Any]:
    """Return a task's configuration for lm-eval, with its documents read from a local folder.

    Parameters
    ----------
    path : Path
        Task file; ``dataset_kwargs.data_files`` names one file for each split. Of ours: ``metadata.fields`` names what
        every document must have, ``metadata.labels`` a file of labels, one a line, that become its field ``label``.
    data : Path
        Folder with these files; ``NAME.jsonl`` will do where ``NAME.jsonl.gz`` is named.

    Raises
    ------
    ConfigError
        When the task file or a data file is missing or lacks a field.
    """
    config = read_task_file(path)
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    if not isinstance(files, Mapping):
        raise ConfigError(f"task file {path} lacks dataset_kwargs.data_files, expected {{SPLIT: FILE}}")
    metadata = config.get("metadata") or {}
    splits = {split: _documents(data, str(name), metadata) for split, name in files.items()}
    return {**config, "dataset_kwargs": None, "custom_dataset": _Documents(splits)}


def read_task_file(path: Path) -> dict[str, Any]:
    """Return a task file's settings, those of the files it includes added; raises ConfigError when it is none."""
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        config: dict[str, Any] = load_yaml(path)
    except Exception as error:  # of YAML, of a function it names, of a file it includes
        raise ConfigError(f"task file {path} cannot be read: {first_line_of(error)}") from None
    for name in ("task", "output_type", "doc_to_target"):
        if name not in config:
            raise ConfigError(f"task file {path} lacks {name!r}; see the files in {TASK_FOLDER}")
    return config


class _Documents:
    """What lm-eval calls for a task's documents."""

    def __init__(self, splits: Mapping[str, list[dict[str, Any]]]) -> None:
        self._splits = splits

    def __call__(self, **settings: Any) -> dict[str, Any]:
        from datasets import Dataset

        return {split: Dataset.from_list(documents) for split, documents in self._splits.items()}


def _documents(data: Path, name: str, metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the documents of one file, all of which have the fields the task needs."""
    path = _find(data, name)
    fields = metadata.get("fields") or []

    def checked(document: Any) -> dict[str, Any]:
        if not isinstance(document, dict):
            raise RefusedRecord(f"the line holds {type(document).__name__}, expected an object")
        for field in fields:
            if field not in document:
                held = ", ".join(sorted(document)) or "nothing"
                raise RefusedRecord(f"field {field!r} is missing; the object has: {held}")
        return document

    documents = read_json_lines(path, checked)
    if metadata.get("labels"):
        _add_labels(documents, _find(data, str(metadata["labels"])), path)
    return documents


def _find(data: Path, name: str) -> Path:
    if not data.is_dir():
        raise ConfigError(f"--data {data} is no folder; expected one with the data files of the tasks")
    path = data / name
    for candidate in (path, path.with_name(path.name.removesuffix(_SUFFIX))):
        if candidate.is_file():
            return candidate
    raise ConfigError(f"{path} does not exist; put the task's data there, or leave the task out")


def _add_labels(documents: list[dict[str, Any]], path: Path, of: Path) -> None:
    lines = path.read_text(encoding="utf-8").split()
    if len(lines) != len(documents):
        raise ConfigError(f"{path} has {len(lines):,} labels for {len(documents):,} documents in {of}")
    for number, (document, label) in enumerate(zip(documents, lines, strict=True), start=1):
        if not label.isdigit():
            raise ConfigError(f"{path}, line {number} is {label!r}, expected the number of the right choice, from 0")
        document["label"] = int(label)
