"""Tokens on disk: the indexed store, its manifest, and how text becomes shards."""

from autoscale_ds.corpus.identity import CorpusIdentity
from autoscale_ds.corpus.indexed import IndexedShard, IndexedWriter, token_dtype
from autoscale_ds.corpus.manifest import Manifest, ShardInfo, TokenizerInfo
from autoscale_ds.corpus.store import Corpus, TokenStore, file_sha256

__all__ = [
    "Corpus",
    "CorpusIdentity",
    "IndexedShard",
    "IndexedWriter",
    "Manifest",
    "ShardInfo",
    "TokenStore",
    "TokenizerInfo",
    "file_sha256",
    "token_dtype",
]
