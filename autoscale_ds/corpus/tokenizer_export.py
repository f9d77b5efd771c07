"""A tokenizer as files that transformers reads, checked to give the ids the model was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers

from autoscale_ds.corpus.store import Corpus
from autoscale_ds.corpus.tokenizer_files import find_tokenizer
from autoscale_ds.corpus.tokenizers import HARD_TEXTS, TOKENIZER_FILE, load_tokenizer
from autoscale_ds.errors import CorpusError

# Held-out documents of each domain that both must read alike, and characters of each: real text, in a few seconds.
_DOCUMENTS, _CHARACTERS = 20, 20_000


def export_tokenizer(corpus: Corpus, folder: Path, context: int, vocabulary: int) -> None:
    """Write a corpus's ``tokenizer.json``, and ``tokenizer_config.json`` for ``transformers.AutoTokenizer``.

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
    info = corpus.manifest.tokenizer
    source = str(corpus.folder / info.file)
    json_text = find_tokenizer(source, needs_config=False).json_text
    reference = _reference(json_text)
    made = _write(json_text, source, info.end_of_document, folder, context)
    _check(made, reference, source, vocabulary, _texts(corpus, reference))


def copy_tokenizer(source: Path, folder: Path, context: int, vocabulary: int) -> None:
    """Write the tokenizer of a Hugging Face folder as ``export_tokenizer`` does that of a corpus."""
    tokenizer = load_tokenizer(str(source))
    made = _write(tokenizer.json_text, str(source), tokenizer.info.end_of_document, folder, context)
    _check(made, _reference(tokenizer.json_text), str(source), vocabulary, ())


def _reference(json_text: str) -> tokenizers.Tokenizer:
    reference = tokenizers.Tokenizer.from_str(json_text)
    reference.no_truncation()
    reference.no_padding()
    return reference


def _write(json_text: str, source: str, end_id: int, folder: Path, context: int) -> Any:
    """Write both files and return what transformers reads from them."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    reference = _reference(json_text)
    end = reference.id_to_token(end_id)
    if end_id not in reference.get_added_tokens_decoder():
        raise CorpusError(
            f"the end-of-document token {end!r} (id {end_id}) is a plain entry of the vocabulary of {source}; "
            "transformers adds it as a special token and would give other ids where text holds it, so the tokenizer "
            "is not exported. Export without it (--weights-only) and use your own with the model, or name the token "
            "under added_tokens in tokenizer.json before you preprocess the next corpus"
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=reference, eos_token=end, bos_token=end, pad_token=end, model_max_length=context
    )
    made.save_pretrained(folder)
    (folder / TOKENIZER_FILE).write_bytes(json_text.encode())
    return AutoTokenizer.from_pretrained(str(folder))


def _check(read_back: Any, reference: tokenizers.Tokenizer, source: str, vocabulary: int, texts: Iterable[str]) -> None:
    if len(read_back) > vocabulary:
        raise CorpusError(
            f"transformers reads {len(read_back):,} tokens from {source}, the model knows "
            f"{vocabulary:,}; the tokenizer is not exported"
        )
    for text in (*HARD_TEXTS, *texts):
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
