"""Starting a run from another run's checkpoint: its weights, and if wanted its optimizer and its place in the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoscale_ds.corpus import CorpusIdentity
from autoscale_ds.errors import ConfigError
from autoscale_ds.models import ModelSpec
from autoscale_ds.stream.journal import Event, history, known_texts
from autoscale_ds.training.checkpoints import (
    Checkpoint,
    Checkpoints,
    find_checkpoint,
    read_checkpoint,
)
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.distributed import on_rank_zero
from autoscale_ds.training.engine import Engine
from autoscale_ds.training.run_corpus import recorded
from autoscale_ds.training.run_folder import RunFolder, load_run_config

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A checkpoint of another run.

    Attributes
    ----------
    run : Path
        That run's folder.
    checkpoint : Checkpoint
        Where to start from.
    """

    run: Path
    checkpoint: Checkpoint

    @classmethod
    def find(cls, asked: str, run: RunConfig, spec: ModelSpec, corpus: CorpusIdentity) -> Source:
        """Return what ``start_from`` names: ``RUN`` (its newest checkpoint) or ``RUN@STEP``.

        Raises
        ------
        ConfigError, CheckpointError
            When there is no such checkpoint, it is of another model or tokenizer, or the stream cannot go on there.
        """
        name, separator, step = asked.rpartition("@")
        if not separator or not step.isdecimal():
            name, step = asked, ""
        folder = Path(name)
        before = load_run_config(folder)
        shape = before.model.build(before.data.sequence_length, spec.vocabulary)
        if (type(shape), shape.whole_shapes()) != (type(spec), spec.whole_shapes()):
            raise ConfigError(
                f"start_from is {asked}, whose model has another shape than this run's: make model.* agree"
            )
        tokenizer = recorded(folder).tokenizer
        if tokenizer is not None and tokenizer != corpus.tokenizer:
            raise ConfigError(
                f"start_from is {asked}, which was trained on ids of the tokenizer {tokenizer}, but those of "
                f"{run.data.corpus} are of {corpus.tokenizer} and mean other text: give a corpus made with that "
                f"tokenizer (tools/preprocess_domains.py --tokenizer {before.data.corpus})"
            )
        if "stream" in run.start_with:
            for key, old, new in (
                ("seed", before.seed, run.seed),
                ("data.sequence_length", before.data.sequence_length, run.data.sequence_length),
                ("data.window_share", before.data.window_share, run.data.window_share),
            ):
                if old != new:
                    raise ConfigError(
                        f"start_with names the stream, but {key} is {new} and {name} has {old}, so its samples would "
                        "come in another order: make them agree, or leave the stream out"
                    )
        path = find_checkpoint(RunFolder(folder).checkpoints, int(step) if step else None)
        return cls(folder, read_checkpoint(path))

    def cursors(self, corpus: CorpusIdentity) -> Mapping[str, int]:
        """Return the samples that were given of each domain whose text is the same here, also of those that left."""
        step = self.checkpoint.step
        copied = history([Event.from_json(dict(raw)) for raw in self.checkpoint.state.journal])
        texts = known_texts(event for event in copied if event.effective_step < step)
        if not texts and step:
            raise ConfigError(
                f"start_with names the stream, but {self.run} does not say which text it read up to step {step}: start "
                "it once more with this version, or leave the stream out"
            )
        given = self.checkpoint.state.stream["cursors"]
        same = {name for name, text in corpus.domains.items() if texts.get(name) == text.train}
        return {name: int(count) for name, count in given.items() if name in same and count}


def begin_from(
    engine: Engine, checkpoints: Checkpoints, run: RunConfig, spec: ModelSpec, corpus: CorpusIdentity
) -> Source | None:
    """Load what ``start_from`` names into the engine of a run, and return it on rank 0. Collective."""
    found: list[Source] = []
    on_rank_zero(lambda: found.append(Source.find(str(run.start_from), run, spec, corpus)))
    source = found[0] if found else None
    checkpoints.begin_from(engine, source.checkpoint if source else None, moments="optimizer" in run.start_with)
    if source is not None:
        log.info("starting from %s", source.checkpoint.folder)
    return source
