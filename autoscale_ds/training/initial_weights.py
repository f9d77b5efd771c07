"""Whether the model that ``model.initial_weights`` names was trained on the ids of this run's corpus."""

from __future__ import annotations

import logging
from pathlib import Path

from autoscale_ds.corpus import Corpus
from autoscale_ds.corpus.same_tokenizer import described, difference_from
from autoscale_ds.corpus.tokenizer_files import find_tokenizer, has_tokenizer
from autoscale_ds.corpus.tokenizers import TextTokenizer
from autoscale_ds.errors import ConfigError, CorpusError
from autoscale_ds.models import ModelSpec
from autoscale_ds.models.registry import hf_end_of_document, spec_of_hf
from autoscale_ds.training.trained import LARGEST_PADDING

log = logging.getLogger(__name__)


def check_initial_weights(source: str, corpus: Corpus, spec: ModelSpec) -> None:
    """Refuse weights that were trained on ids of another tokenizer; warn where that cannot be told.

    Parameters
    ----------
    source : str
        Hugging Face folder, or hub name.
    corpus : Corpus
        Of the run that starts.
    spec : ModelSpec
        Shape of its model.

    Raises
    ------
    ConfigError
        Naming both tokenizers; or when there is no tokenizer to compare and the sizes of the vocabularies do not fit.
    """
    folder = Path(source)
    if folder.is_dir() and not has_tokenizer(folder):
        _check_size(folder, spec)
    else:
        _check_tokenizer(source, corpus)
    if (folder / "config.json").exists():
        _warn_of_another_end(folder, corpus)


def _check_tokenizer(source: str, corpus: Corpus) -> None:
    info = corpus.manifest.tokenizer
    try:
        json_text = find_tokenizer(source, needs_config=False).json_text
    except CorpusError as error:
        if Path(source).is_dir():
            raise
        log.warning("whether %s was trained on ids of the corpus's tokenizer is not known: %s", source, error)
        return  # whether there is such a model is found when its weights are read
    other = TextTokenizer(source, json_text, info.end_of_document)
    difference = difference_from(corpus, other)
    if difference is not None:
        raise ConfigError(
            f"model.initial_weights is {source}, whose tokenizer ({described(other.info)}) is not that of the corpus "
            f"{corpus.folder} ({described(info)}): {difference}; its ids mean other text. Make the corpus with "
            f"tools/preprocess_domains.py --tokenizer {source}, or start from weights trained with the corpus's "
            "tokenizer"
        )
    if not info.sha256:
        log.warning(
            "%s holds no tokenizer.json: of the tokenizer of %s only the size was compared, %s tokens",
            corpus.folder,
            source,
            f"{info.vocabulary_size:,}",
        )


def _check_size(folder: Path, spec: ModelSpec) -> None:
    known = spec_of_hf(folder).vocabulary
    if not spec.vocabulary <= known <= spec.vocabulary + LARGEST_PADDING:
        raise ConfigError(
            f"model.initial_weights is {folder}, which holds no tokenizer, and its model knows {known:,} tokens where "
            f"this run's has {spec.vocabulary:,}: it was trained on ids of another tokenizer. Start from weights "
            "trained with the corpus's, or make the corpus with the model's (tools/preprocess_domains.py --tokenizer)"
        )
    log.warning(
        "%s holds no tokenizer, so whether it was trained on ids of the corpus's is not known; the size fits, %s "
        "tokens. Export with the tokenizer to have it checked",
        folder,
        f"{known:,}",
    )


def _warn_of_another_end(folder: Path, corpus: Corpus) -> None:
    end, ours = hf_end_of_document(folder), corpus.manifest.tokenizer.end_of_document
    if end is not None and end != ours:
        log.warning("documents end with id %s for the model in %s, with %s in the corpus", end, folder, ours)
