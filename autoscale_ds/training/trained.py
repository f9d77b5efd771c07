"""A trained model to work with: any checkpoint of a run folder, or an exported Hugging Face folder."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoscale_ds.corpus import TokenizerInfo
from autoscale_ds.corpus.same_tokenizer import described as described_tokenizer
from autoscale_ds.corpus.same_tokenizer import difference_from
from autoscale_ds.corpus.tokenizer_files import TOKENIZER_FILE, find_tokenizer, has_tokenizer
from autoscale_ds.corpus.tokenizers import TextTokenizer, load_tokenizer
from autoscale_ds.errors import CheckpointError, ConfigError
from autoscale_ds.models import ModelSpec
from autoscale_ds.models.registry import spec_of_hf
from autoscale_ds.training.checkpoints import Checkpoint, find_checkpoint, sound_checkpoint
from autoscale_ds.training.run_corpus import open_run_corpus
from autoscale_ds.training.run_folder import RunFolder, load_run_config

LARGEST_PADDING = 128
"""A model may have more ids than its tokenizer, to round its matrices up; more than this is another tokenizer."""


class TrainedRun:
    """A checkpoint of a run folder, which is only read.

    Parameters
    ----------
    run : Path
        Run folder.
    step : int, optional
        Which checkpoint; the newest by default.
    corpus : Path, optional
        Where the corpus lies now; as the run was told by default.

    Attributes
    ----------
    folder : RunFolder
        The run's.
    config : RunConfig
        Of its last start.
    corpus : Corpus
        Whose tokenizer is that of the run.
    spec : ModelSpec
        The model.

    Raises
    ------
    ConfigError
        When the folder is no run folder, or the corpus has another tokenizer.
    CheckpointError
        When there is no such checkpoint.
    """

    def __init__(self, run: Path, step: int | None = None, corpus: Path | None = None) -> None:
        self.folder = RunFolder(run)
        self.config = load_run_config(run)
        self.corpus = open_run_corpus(run, corpus)
        self.spec = self.config.model.build(self.config.data.sequence_length, self.tokenizer.vocabulary_size)
        self._step = step
        find_checkpoint(self.folder.checkpoints, step)

    @property
    def tokenizer(self) -> TokenizerInfo:
        """What the corpus says of its tokenizer."""
        return self.corpus.manifest.tokenizer

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint, every file of which has its checksum."""
        return sound_checkpoint(self.folder.checkpoints, self._step)

    def weights(self, checkpoint: Checkpoint, working: Path) -> dict[str, Tensor]:
        """Return the fp32 weights of a checkpoint by name.

        Parameters
        ----------
        working : Path
            Folder for what is converted on the way, see ``saved_weights``.
        """
        from autoscale_ds.training.engine import saved_weights

        return saved_weights(checkpoint.folder, checkpoint.layout, self.spec, working)


@dataclass(frozen=True)
class TrainedModel:
    """A model ready for use.

    Attributes
    ----------
    folder : Path
        What was opened.
    spec : ModelSpec
        Its shape.
    model : nn.Module
        With weights, on its device, in evaluation mode.
    tokenizer : TextTokenizer
        Whose ids it was trained on.
    step, tokens_seen : int or None
        Of the run's checkpoint; None for a Hugging Face folder.
    """

    folder: Path
    spec: ModelSpec
    model: nn.Module
    tokenizer: TextTokenizer
    step: int | None = None
    tokens_seen: int | None = None


def default_device() -> torch.device:
    """Return this process's GPU where there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def open_trained(
    folder: Path,
    step: int | None = None,
    corpus: Path | None = None,
    tokenizer: str | None = None,
    device: torch.device | None = None,
) -> TrainedModel:
    """Return the model of a run folder or of a Hugging Face folder, with its tokenizer.

    Parameters
    ----------
    folder : Path
        Run folder (has ``config.yaml``), or a folder with ``config.json`` and weights of a family we have.
    step : int, optional
        Which checkpoint of a run; the newest by default.
    corpus : Path, optional
        Where a run's corpus lies now, for its tokenizer.
    tokenizer : str, optional
        Another place for the tokenizer: a ``tokenizer.json`` or a folder that holds one.
    device : torch.device, optional
        The GPU where there is one by default.

    Raises
    ------
    AutoScaleError
        When the folder is neither, there is no such checkpoint, it is damaged, or the tokenizer is not the model's.
    """
    run = find_run(folder, step, corpus)
    if run is None:
        return _open_hf(folder, tokenizer, device or default_device())
    return _open_run(run, folder, tokenizer, device or default_device())


def find_run(folder: Path, step: int | None = None, corpus: Path | None = None) -> TrainedRun | None:
    """Return the run in a folder, None for a Hugging Face folder; see ``open_trained``.

    Raises
    ------
    ConfigError
        When the folder is neither, or a Hugging Face folder with a step or corpus to choose.
    """
    if is_hf_folder(folder):
        if step is not None or corpus is not None:
            raise ConfigError(f"{folder} is a Hugging Face folder: it has no checkpoints and no corpus to choose from")
        return None
    if not (folder / "config.yaml").exists():
        raise ConfigError(
            f"{folder} is neither a run folder (no config.yaml) nor a Hugging Face folder (no config.json); give the "
            "folder launch/train.py or tools/export_hf.py wrote"
        )
    return TrainedRun(folder, step, corpus)


def is_hf_folder(folder: Path) -> bool:
    """Return whether a folder holds a Hugging Face model and is no run folder."""
    return (folder / "config.json").exists() and not (folder / "config.yaml").exists()


def _open_run(run: TrainedRun, folder: Path, tokenizer: str | None, device: torch.device) -> TrainedModel:
    text_tokenizer = _run_tokenizer(run, tokenizer)
    with tempfile.TemporaryDirectory(prefix="autoscale-weights-") as working:
        checkpoint = run.checkpoint()
        model = _ready(run.spec, run.weights(checkpoint, Path(working)), device)
    return TrainedModel(folder, run.spec, model, text_tokenizer, checkpoint.step, checkpoint.state.tokens)


def _open_hf(folder: Path, tokenizer: str | None, device: torch.device) -> TrainedModel:
    spec = spec_of_hf(folder)
    text_tokenizer = _hf_tokenizer(folder, spec, tokenizer)
    return TrainedModel(folder, spec, _ready(spec, spec.read_hf(folder), device), text_tokenizer)


def _ready(spec: ModelSpec, weights: dict[str, Tensor], device: torch.device) -> nn.Module:
    """Return the model with these weights; a tied parameter may be named once or twice in them."""
    model = spec.build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in weights or weights[name].shape != parameter.shape:
                found = tuple(weights[name].shape) if name in weights else "missing"
                raise CheckpointError(f"weight {name} is {found}, expected shape {tuple(parameter.shape)}")
            parameter.copy_(weights[name])
    return model.to(device).eval()


def _run_tokenizer(run: TrainedRun, given: str | None) -> TextTokenizer:
    info = run.tokenizer
    if not info.file and given is None:
        raise ConfigError(
            f"{run.corpus.folder} holds no {TOKENIZER_FILE}; give the one whose ids the run was trained on: "
            "--tokenizer FILE"
        )
    source = given or str(run.corpus.folder / info.file)
    made = TextTokenizer(source, find_tokenizer(source, needs_config=False).json_text, info.end_of_document)
    problem = difference_from(run.corpus, made)
    if problem is not None:
        raise ConfigError(
            f"the tokenizer {source} ({described_tokenizer(made.info)}) is not the one whose ids the run was trained "
            f"on ({described_tokenizer(info)}): {problem}; give that one with --tokenizer FILE"
        )
    return made


def _hf_tokenizer(folder: Path, spec: ModelSpec, given: str | None) -> TextTokenizer:
    if given is None and not has_tokenizer(folder):
        raise ConfigError(f"{folder} holds no {TOKENIZER_FILE}; give the model's with --tokenizer FILE")
    made = load_tokenizer(given or str(folder))
    size = made.info.vocabulary_size
    # The folder's own may be much smaller than the model: `model.vocabulary` lets a run leave room.
    if size > spec.vocabulary or (given is not None and size + LARGEST_PADDING < spec.vocabulary):
        raise ConfigError(
            f"the tokenizer {made.info.name} has {size:,} tokens, the model in {folder} knows {spec.vocabulary:,}: it "
            "is not the model's; give that one with --tokenizer FILE"
        )
    return made


def text_to_ids(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of texts, without an end-of-document token.

    Raises
    ------
    ConfigError
        For a text that the tokenizer cannot encode.
    """
    ids, refused = tokenizer.texts(texts)
    if refused:
        place = min(refused)
        raise ConfigError(f"the text {texts[place][:60]!r} cannot be given to the model: {refused[place]}")
    return [part.tolist() for part in ids]


@contextlib.contextmanager
def out_of_memory_as_error(setting: str) -> Iterator[None]:
    """Raise ConfigError in place of torch's error that the GPU's memory did not suffice; names the setting to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"the GPU's memory did not suffice ({error!s:.80}); lower {setting}") from None


def described(trained: TrainedModel) -> dict[str, Any]:
    """Return what a record says of a model: folder, step, tokens seen, parameters, tokenizer."""
    return {
        "model": str(trained.folder),
        "step": trained.step,
        "tokens_seen": trained.tokens_seen,
        "parameters": trained.spec.num_parameters,
        "tokenizer_sha256": trained.tokenizer.info.sha256,
    }
