"""GPT-2's older tokenizer files, ``vocab.json`` and ``merges.txt``, as the ``tokenizer.json`` that says the same."""

from __future__ import annotations

from pathlib import Path

import tokenizers

from autoscale_ds.corpus.documents import first_line_of
from autoscale_ds.errors import CorpusError

VOCABULARY_FILE, MERGES_FILE = "vocab.json", "merges.txt"
_SPECIAL = "<|endoftext|>"  # GPT-2's only one; neither file says which entries are special


def has_byte_pair_files(folder: Path) -> bool:
    """Return whether a folder holds both files."""
    return (folder / VOCABULARY_FILE).is_file() and (folder / MERGES_FILE).is_file()


def byte_pair_json(folder: Path) -> str:
    """Return both files of a folder as a ``tokenizer.json``: byte-level BPE with GPT-2's pretokenisation.

    Raises
    ------
    CorpusError
        When they cannot be read as a vocabulary and its merges.
    """
    files = str(folder / VOCABULARY_FILE), str(folder / MERGES_FILE)
    try:
        made = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(*files))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers raises bare Exceptions, and panics of Rust are not even that
        raise CorpusError(
            f"{folder}: {VOCABULARY_FILE} and {MERGES_FILE} are no byte-level BPE ({first_line_of(error)}); copy both "
            "from one model again"
        ) from None
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    if made.token_to_id(_SPECIAL) is not None:
        made.add_special_tokens([_SPECIAL])
    return made.to_str(pretty=True)
