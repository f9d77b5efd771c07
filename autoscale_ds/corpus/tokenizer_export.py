"""A corpus's tokenizer as files that transformers reads, checked to give the ids the model was trained on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers

from autoscale_ds.corpus.store import Corpus
from autoscale_ds.corpus.tokenizers import HARD_TEXTS, TOKENIZER_FILE
from autoscale_ds.errors import CorpusError

# Held-out documents of each domain that both must read alike, and characters of each: real text, in a few seconds.
_DOCUMENTS, _CHARACTERS = 20, 20_000


def export_tokenizer(corpus: Corpus, folder: Path, context: int, vocabulary: int) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` for ``transformers.AutoTokenizer``.

    Without the second, transformers guesses a class from the model's, and its ids may be others. The end-of-document
    token is also that of padding, which no loss should count.

    Parameters
    ----------
    corpus : Corpus
        Holds the tokenizer, and the text to check with.
    folder : Path
        Written to; made if need be.
    context : int
        The model's, tokens.
    vocabulary : int
        Ids the model knows.

    Raises
    ------
    CorpusError
        When the end-of-document token is no added token, or what transformers reads back gives other ids, or ids that
        the model does not know.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    source = corpus.folder / corpus.manifest.tokenizer.file
    reference = tokenizers.Tokenizer.from_file(str(source))
    reference.no_truncation()
    reference.no_padding()
    end_id = corpus.manifest.tokenizer.end_of_document
    end = reference.id_to_token(end_id)
    if end_id not in reference.get_added_tokens_decoder():
        raise CorpusError(
            f"the end-of-document token {end!r} (id {end_id}) is a plain entry of the vocabulary of {source}; "
            "transformers adds it as a special token and would give other ids where text holds it, so the tokenizer "
            "is not exported. Export without it (--weights-only) and use your own with the model, or name the token "
            "under added_tokens in tokenizer.json before you preprocess the next corpus"
        )
    made = PreTrainedTokenizerFast(
        tokenizer_file=str(source), eos_token=end, bos_token=end, pad_token=end, model_max_length=context
    )
    made.save_pretrained(folder)
    shutil.copy(source, folder / TOKENIZER_FILE)
    _check(AutoTokenizer.from_pretrained(str(folder)), reference, corpus, vocabulary)


def _check(read_back: Any, reference: tokenizers.Tokenizer, corpus: Corpus, vocabulary: int) -> None:
    if len(read_back) > vocabulary:
        raise CorpusError(
            f"transformers reads {len(read_back):,} tokens from {corpus.manifest.tokenizer.name}, the model knows "
            f"{vocabulary:,}; the tokenizer is not exported"
        )
    for text in (*HARD_TEXTS, *_texts(corpus, reference)):
        expected = reference.encode(text, add_special_tokens=False).ids
        found = read_back.encode(text, add_special_tokens=False, verbose=False)  # may be longer than the context
        if found != expected:
            place = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), len(expected))
            raise CorpusError(
                f"transformers ({type(read_back).__name__}) gives other ids than the corpus's tokenizer: "
                f"{found[place : place + 5]}, not {expected[place : place + 5]}, in {text[:60]!r}; it is not exported"
            )


def _texts(corpus: Corpus, reference: tokenizers.Tokenizer) -> Iterator[str]:
    for name in corpus.domains:
        store = corpus.store(name, "validation")
        for index in range(min(store.num_documents, _DOCUMENTS)):
            tokens = store.document(index)[:-1].tolist()
            yield reference.decode(tokens, skip_special_tokens=False)[:_CHARACTERS]
