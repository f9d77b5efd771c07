"""Text to token ids: the reference is `tokenizers`; `gigatoken` does the work where its ids are the same.

Special tokens inside documents are ordinary text here: a web page that quotes ``<|endoftext|>`` must not end a
training document. The end-of-document token is appended by number, once a document, and the ids of every document are
searched for it, see ``end_guard``.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers

from autoscale_ds.corpus.backends import (
    HARD_TEXTS,
    Backend,
    GigatokenBackend,
    ReferenceBackend,
    first_difference,
)
from autoscale_ds.corpus.documents import first_line_of
from autoscale_ds.corpus.end_guard import without_end
from autoscale_ds.corpus.indexed import token_dtype
from autoscale_ds.corpus.manifest import TokenizerInfo
from autoscale_ds.corpus.tokenizer_files import TOKENIZER_FILE, find_tokenizer
from autoscale_ds.errors import CorpusError

_LARGEST_ID = (1 << 31) - 1  # of an int32, the larger of the two types of shards
# Names models give to the token that ends a document, tried in this order.
_END_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "[SEP]")


class Encoded(NamedTuple):
    """Documents as ids.

    Attributes
    ----------
    tokens : ndarray
        All ids back to back, each document ended.
    lengths : ndarray
        Ids of each document that was not refused, the end-of-document token included.
    refused : dict of int to str
        Why, by place in the input, a document could not be encoded.
    """

    tokens: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    refused: dict[int, str]


class TextTokenizer:
    """A tokenizer.json with its end-of-document token.

    Attributes
    ----------
    info : TokenizerInfo
        Name, vocabulary size, end-of-document id and checksum, as in ``corpus.json``.
    json_text : str
        Contents of ``tokenizer.json``; their SHA-256 is ``info.sha256``.
    dropout : float or None
        BPE dropout of the file, which is off here: the same text has the same ids at every run.
    source_digests : mapping of str to str
        SHA-256 of the files it was read from, by name; empty for one that was trained or pickled.
    backend : Backend
        ``tokenizers`` until ``use_gigatoken`` has shown that the faster one agrees.
    """

    def __init__(
        self,
        name: str,
        json_text: str,
        end_of_document: str | int | None = None,
        source_digests: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        try:
            self._reference = _whole_texts(json_text)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # tokenizers raises bare Exceptions, and panics of Rust are not even that
            raise CorpusError(f"tokenizer {name} is no valid tokenizer.json: {first_line_of(error)}") from None
        self.dropout: float | None = getattr(self._reference.model, "dropout", None)
        if self.dropout:
            self._reference.model.dropout = None
        vocabulary = self._reference.get_vocab(with_added_tokens=True)
        if not vocabulary or max(vocabulary.values()) > _LARGEST_ID:
            what = f"the id {max(vocabulary.values()):,}" if vocabulary else "no token"
            raise CorpusError(f"tokenizer {name} has {what}; expected ids up to {_LARGEST_ID:,}")
        self.json_text = json_text
        self.source_digests = dict(source_digests)
        self.info = TokenizerInfo(
            name=name,
            vocabulary_size=max(vocabulary.values()) + 1,
            end_of_document=_find_end(name, vocabulary, end_of_document),
            sha256=hashlib.sha256(json_text.encode()).hexdigest(),
            file=TOKENIZER_FILE,
        )
        self.dtype = token_dtype(self.info.vocabulary_size)
        self.backend: Backend = ReferenceBackend(self._reference)

    @property
    def made_with(self) -> dict[str, str]:
        """Versions of the libraries that encode, by name; the backend comes first."""
        names = dict.fromkeys((self.backend.name, ReferenceBackend.name))
        return {name: importlib.metadata.version(name) for name in names}

    @property
    def end_name(self) -> str:
        """The end-of-document token as text."""
        return str(self._reference.id_to_token(self.info.end_of_document))

    def use_gigatoken(self, sample: Iterable[bytes]) -> str | None:
        """Switch to gigatoken if it is installed and gives the same ids; return why not, or None when it is in use."""
        added = [token.content for token in self._reference.get_added_tokens_decoder().values()]
        documents = [*(text.encode() for text in (*HARD_TEXTS, *added)), *sample]
        try:
            fast = GigatokenBackend(self.json_text, self.backend)
            tokens, lengths = fast.encode(documents)
        except ImportError:
            return "gigatoken is not installed (pip install 'autoscale_ds[fast]')"
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a tokenizer it does not support; Rust panics do not derive from Exception
            return f"gigatoken is not used with this tokenizer: {first_line_of(error)}"
        expected, expected_lengths = self.backend.encode(documents)
        if not (np.array_equal(lengths, expected_lengths) and np.array_equal(tokens, expected)):
            different = first_difference(tokens, lengths, expected, expected_lengths)
            return f"gigatoken gives other ids than tokenizers for {documents[different][:60]!r}"
        self.backend = fast
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as its text: the ranks of an MPI job each build their own, and do not repeat the check."""
        return _rebuild, (self.info.name, self.json_text, self.end_name, self.backend.name)

    def encode(self, documents: Sequence[bytes]) -> Encoded:
        """Return the ids of documents, given as UTF-8; the end-of-document id stands at the end of each alone."""
        ids, lengths, refused = self._encode_all(documents)
        if (ids == self.info.end_of_document).any():
            ids, lengths = self._without_ends(documents, ids, lengths, refused)
        kept = np.ones(len(documents), bool)
        kept[list(refused)] = False
        lengths = lengths[kept]
        tokens = np.empty(len(ids) + len(lengths), self.dtype)
        ends = np.cumsum(lengths + 1) - 1
        inside = np.ones(len(tokens), bool)
        inside[ends] = False
        tokens[inside] = ids
        tokens[ends] = self.info.end_of_document
        return Encoded(tokens, lengths + 1, refused)

    def texts(self, texts: Sequence[str]) -> tuple[list[npt.NDArray[Any]], dict[int, str]]:
        """Return the ids of each text without an end-of-document token, and by place why texts were refused.

        A refused text has no ids.
        """
        encoded = self.encode([text.encode(errors="surrogatepass") for text in texts])
        lengths = np.zeros(len(texts), np.int64)
        lengths[[place for place in range(len(texts)) if place not in encoded.refused]] = encoded.lengths
        parts = np.split(encoded.tokens, np.cumsum(lengths)[:-1])
        return [part[:-1] for part in parts], encoded.refused

    def _encode_all(self, documents: Sequence[bytes]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], dict[int, str]]:
        """Encode at once, or one by one where that fails; a refused document has no ids."""
        try:
            return *self.backend.encode(documents), {}
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # tokenizers raises bare Exceptions, and panics of Rust are not even that
            if len(documents) <= 1:
                reason = f"the tokenizer failed: {first_line_of(error)}"
                return np.empty(0, np.uint32), np.zeros(len(documents), np.int64), {0: reason}
        alone = [self._encode_all([document]) for document in documents]
        refused = {place: reasons[0] for place, (_, _, reasons) in enumerate(alone) if reasons}
        return np.concatenate([ids for ids, _, _ in alone]), np.concatenate([n for _, n, _ in alone]), refused

    def _without_ends(
        self,
        documents: Sequence[bytes],
        ids: npt.NDArray[Any],
        lengths: npt.NDArray[np.int64],
        refused: dict[int, str],
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Encode documents that hold the end-of-document id in another way; refuse those that cannot be."""
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        for place, part in enumerate(parts):
            if not (part == self.info.end_of_document).any():
                continue
            other = self._encoded_without_end(documents[place])
            if (other == self.info.end_of_document).any() or self._text(other) != self._text(part):
                refused[place] = (
                    f"the text holds {self.end_name!r}, which this tokenizer turns into the id that ends documents; "
                    "choose another token to end them (--end-of-document)"
                )
                other = other[:0]
            parts[place] = other
        return np.concatenate(parts), np.array([len(part) for part in parts], np.int64)

    def _encoded_without_end(self, document: bytes) -> npt.NDArray[Any]:
        """Return the ids of a document by a tokenizer without the end token; that token where it cannot do without."""
        try:
            return self._guarded.encode([document])[0]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # the end token may be the one that stands for unknown text
            return np.array([self.info.end_of_document])

    @functools.cached_property
    def _guarded(self) -> Backend:
        return ReferenceBackend(_whole_texts(without_end(self.json_text, self.info.end_of_document)))

    def _text(self, ids: npt.NDArray[Any]) -> str:
        return str(self._reference.decode(ids.tolist(), skip_special_tokens=False))

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens, special ones spelled out."""
        return str(self._reference.decode([int(token) for token in tokens], skip_special_tokens=False))


def load_tokenizer(name: str, end_of_document: str | None = None) -> TextTokenizer:
    """Load a tokenizer from a ``tokenizer.json``, a folder that holds one, or the hub (``gpt2``, ``org/name``).

    Raises
    ------
    CorpusError
        If it is in none of these places, or its end-of-document token cannot be told.
    """
    files = find_tokenizer(name, needs_config=end_of_document is None)
    return TextTokenizer(name, files.json_text, end_of_document or files.configured_end, files.digests)


def train_tokenizer(documents: Iterable[bytes], vocabulary_size: int) -> TextTokenizer:
    """Train a byte-level BPE with GPT-2's pretokenisation; ``<|endoftext|>`` is id 0.

    Any text can be encoded: the alphabet is all 256 bytes. The result depends on the documents alone.
    """
    if vocabulary_size < 257:
        raise CorpusError(f"vocabulary size {vocabulary_size} is below 257: 256 bytes and the end-of-document token")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[_END_NAMES[0]],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator((document.decode() for document in documents), trainer)
    return TextTokenizer(f"trained-bpe-{vocabulary_size}", model.to_str(pretty=True))


def _whole_texts(json_text: str) -> tokenizers.Tokenizer:
    """Return a tokenizer that encodes all of a text, special tokens in it as text."""
    tokenizer = tokenizers.Tokenizer.from_str(json_text)
    # A tokenizer.json may truncate or pad, which would cut documents or fill them up.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _rebuild(name: str, json_text: str, end_name: str, backend: str) -> TextTokenizer:
    tokenizer = TextTokenizer(name, json_text, end_name)
    if backend == GigatokenBackend.name:
        tokenizer.backend = GigatokenBackend(json_text, tokenizer.backend)
    return tokenizer


def _find_end(name: str, vocabulary: dict[str, int], wanted: str | int | None) -> int:
    if isinstance(wanted, int):
        return wanted
    if wanted is not None and wanted not in vocabulary:
        raise CorpusError(f"tokenizer {name} has no token {wanted!r} to end documents with")
    names = (wanted,) if wanted is not None else _END_NAMES
    for candidate in names:
        if candidate in vocabulary:
            return vocabulary[candidate]
    raise CorpusError(
        f"tokenizer {name} has none of {', '.join(_END_NAMES)}; name the token that ends a document "
        "with --end-of-document"
    )
