"""A tokenizer's files: ``tokenizer.json``, and ``tokenizer_config.json``, which names the token that ends documents.

Of the hub's, both come from one revision or none is used: the second file alone decides which id ends documents, and
whether it happens to lie in the cache must not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from autoscale_ds.corpus.byte_pair_files import (
    MERGES_FILE,
    VOCABULARY_FILE,
    byte_pair_json,
    has_byte_pair_files,
)
from autoscale_ds.corpus.documents import first_line_of
from autoscale_ds.corpus.hub import hub_obstacle
from autoscale_ds.errors import CorpusError

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
_HUB_NAMES = {"gpt2": "openai-community/gpt2"}


@dataclass(frozen=True)
class TokenizerFiles:
    """What both files hold; ``config`` is empty where there is none."""

    json_text: str
    config: str

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the files there are, by name."""
        texts = {TOKENIZER_FILE: self.json_text, CONFIG_FILE: self.config}
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items() if text}

    @property
    def configured_end(self) -> str | None:
        """``eos_token`` of the configuration."""
        try:
            token = json.loads(self.config).get("eos_token")
        except (ValueError, AttributeError):
            return None
        token = token.get("content") if isinstance(token, dict) else token
        if token is not None and not isinstance(token, str):
            raise CorpusError(
                f"{CONFIG_FILE} gives {token!r:.60} as eos_token, expected a token; name it with --end-of-document"
            )
        return token


def find_tokenizer(name: str, needs_config: bool = True) -> TokenizerFiles:
    """Read a tokenizer from a ``tokenizer.json``, a folder that holds one, or the hub (``gpt2``, ``org/name``).

    A folder without it may hold ``vocab.json`` and ``merges.txt``, see ``byte_pair_files``.

    Parameters
    ----------
    name : str
        Path or hub name.
    needs_config : bool
        Whether the token that ends documents is asked of the configuration.

    Raises
    ------
    CorpusError
        If it is in none of these places, or cannot be read.
    """
    path = Path(name).expanduser()
    file, folder = (path / TOKENIZER_FILE, path) if path.is_dir() else (path, path.parent)
    if file.is_file() or (path.is_dir() and has_byte_pair_files(folder)):
        config = folder / CONFIG_FILE
        json_text = _read(file) if file.is_file() else byte_pair_json(folder)
        return TokenizerFiles(json_text, _read(config) if config.is_file() else "")
    if name.endswith(".json") or name.count("/") > 1 or Path(name).is_dir():
        raise CorpusError(
            f"no tokenizer at {name}: expected a {TOKENIZER_FILE} or a folder that holds one, or holds "
            f"{VOCABULARY_FILE} and {MERGES_FILE}"
        )
    return _from_hub(name, needs_config)


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds the files of a tokenizer that ``find_tokenizer`` reads."""
    return (folder / TOKENIZER_FILE).is_file() or has_byte_pair_files(folder)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"cannot read tokenizer {path}: {error}") from None


def _from_hub(name: str, needs_config: bool) -> TokenizerFiles:
    repository = _HUB_NAMES.get(name, name)
    tokenizer, config = _cached(repository)
    if tokenizer is not None and (config is not None or not needs_config):
        return TokenizerFiles(_read(tokenizer), config or "")
    reason = hub_obstacle()
    if reason is None:
        try:
            return _download(repository)
        except CorpusError:
            raise
        except Exception as error:  # the client raises many undocumented exceptions
            reason = first_line_of(error)
    if tokenizer is not None:
        raise CorpusError(
            f"tokenizer {name!r} lies in the hub's cache without its {CONFIG_FILE}, which names the token that ends "
            f"documents, and the hub did not give it ({reason:.150}); name the token with --end-of-document"
        )
    raise CorpusError(
        f"tokenizer {name!r} is no local file or folder, and the Hugging Face hub did not give it ({reason:.150}); "
        f"give the path of a {TOKENIZER_FILE}: --tokenizer FOLDER"
    )


def _cached(repository: str) -> tuple[Path | None, str | None]:
    """Return the cached ``tokenizer.json``, and what is known of the configuration: empty if the hub has none."""
    import huggingface_hub

    with contextlib.suppress(ValueError):  # a name that can be none of the hub's
        tokenizer = huggingface_hub.try_to_load_from_cache(repository, TOKENIZER_FILE)
        if not isinstance(tokenizer, str):
            return None, None
        revision = Path(tokenizer).parent.name
        config = huggingface_hub.try_to_load_from_cache(repository, CONFIG_FILE, revision=revision)
        if isinstance(config, str):
            return Path(tokenizer), _read(Path(config))
        return Path(tokenizer), "" if config is huggingface_hub._CACHED_NO_EXIST else None
    return None, None


def _download(repository: str) -> TokenizerFiles:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    tokenizer = Path(huggingface_hub.hf_hub_download(repository, TOKENIZER_FILE, etag_timeout=10))
    try:
        revision = tokenizer.parent.name
        config = huggingface_hub.hf_hub_download(repository, CONFIG_FILE, revision=revision, etag_timeout=10)
    except LocalEntryNotFoundError:  # no answer
        raise
    except EntryNotFoundError:  # the answer that there is none
        return TokenizerFiles(_read(tokenizer), "")
    return TokenizerFiles(_read(tokenizer), _read(Path(config)))
