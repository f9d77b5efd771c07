"""A model as a complete Hugging Face folder: weights, configurations, tokenizer and model card.

What is written depends on the model alone, no date and no path of the machine, so that the same checkpoint gives the
same bytes, and so does a folder that was exported before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autoscale_ds.corpus.tokenizer_export import copy_tokenizer, export_tokenizer
from autoscale_ds.corpus.tokenizer_files import has_tokenizer
from autoscale_ds.errors import ConfigError
from autoscale_ds.files import make_folder, remove_empty, write_atomic
from autoscale_ds.models import ModelSpec
from autoscale_ds.models.registry import hf_end_of_document, spec_of_hf
from autoscale_ds.training.model_card import CARD_FILE, model_card
from autoscale_ds.training.trained import TrainedRun, find_run


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes
    ----------
    source : Path
        The checkpoint, or the Hugging Face folder.
    spec : ModelSpec
        The model.
    lacks : tuple of str
        Why parts of a complete folder are missing, one sentence each.
    """

    source: Path
    spec: ModelSpec
    lacks: tuple[str, ...]


def export(
    source: Path, output: Path, step: int | None = None, corpus: Path | None = None, with_tokenizer: bool = True
) -> Exported:
    """Write the model of a run or of a Hugging Face folder as a Hugging Face folder; the source is only read.

    Parameters
    ----------
    source : Path
        Run folder, or Hugging Face folder of a family we have.
    output : Path
        Must not exist; it appears whole or not at all.
    step : int, optional
        Which checkpoint of a run; the newest by default.
    corpus : Path, optional
        Where a run's corpus lies now; as the run was told by default.
    with_tokenizer : bool
        Whether to write the tokenizer too, where there is one.

    Raises
    ------
    AutoScaleError
        When the output exists, the source is neither, its checkpoint is damaged, or transformers would read another
        tokenizer from the folder.
    """
    if output.exists():
        raise ConfigError(f"{output} exists already; give another folder to write")
    run = find_run(source, step, corpus)
    with _folder_beside(output) as working:
        unfinished = working / "hf"
        unfinished.mkdir()
        if run is None:
            exported = _export_hf(source, unfinished, with_tokenizer)
        else:
            exported = _export_run(run, unfinished, working / "converted", with_tokenizer)
        os.replace(unfinished, output)
    return exported


def _export_run(run: TrainedRun, folder: Path, working: Path, with_tokenizer: bool) -> Exported:
    lacks = []
    if with_tokenizer and run.tokenizer.file:  # what takes seconds comes first, the weights take minutes
        export_tokenizer(run.corpus, folder, run.spec.context, run.spec.vocabulary)
    elif with_tokenizer:
        lacks.append(f"{run.corpus.folder} holds no tokenizer.json, so the folder has none either")
    checkpoint = run.checkpoint()
    # Names of domains need not be UTF-8; Python keeps such bytes as lone surrogates.
    write_atomic(folder / CARD_FILE, model_card(run, checkpoint).encode(errors="backslashreplace"))
    run.spec.write_hf(run.weights(checkpoint, working), folder, run.tokenizer.end_of_document)
    return Exported(checkpoint.folder, run.spec, tuple(lacks))


def _export_hf(source: Path, folder: Path, with_tokenizer: bool) -> Exported:
    spec, end = spec_of_hf(source), hf_end_of_document(source)
    if end is None:
        raise ConfigError(
            f"{source / 'config.json'} does not say which id ends documents; add it as eos_token_id, a whole number"
        )
    lacks = []
    if with_tokenizer and has_tokenizer(source):
        copy_tokenizer(source, folder, spec.context, spec.vocabulary)
    elif with_tokenizer:
        lacks.append(f"{source} holds no tokenizer, so the folder has none either")
    if (source / CARD_FILE).is_file():  # somebody may have filled it in
        shutil.copyfile(source / CARD_FILE, folder / CARD_FILE)
    else:
        lacks.append(f"{source} holds no {CARD_FILE}, so the folder has no model card; a run has what one says")
    spec.write_hf(spec.read_hf(source), folder, end)
    return Exported(source, spec, tuple(lacks))


@contextlib.contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """Give a working folder from which the result can be renamed into place; leave nothing when it fails."""
    made = make_folder(output.parent)
    try:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as working:
            yield Path(working)
    except BaseException:
        remove_empty(made)
        raise
