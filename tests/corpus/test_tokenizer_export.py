"""What AutoTokenizer reads from an exported folder gives the ids that the corpus was made with."""

import json
import shutil

import pytest
import tokenizers
from corpus_helpers import sentences, write_jsonl
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from autoscale_ds.corpus import Corpus
from autoscale_ds.corpus.tokenizer_export import export_tokenizer
from autoscale_ds.errors import CorpusError

LLAMA_3 = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
TEXTS = ["It's 12345 o'clock, and I'LL be   there\n\n\tby 6:30 – café, naïve, 汉字 👩‍👩‍👧", *sentences(60, "token")]


def llama_3():
    tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA_3), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|begin_of_text|>", "<|end_of_text|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def metaspace():
    tokenizer = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "</s>"], show_progress=False)


def word_piece():
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer, trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[SEP]"], show_progress=False)


@pytest.fixture(params=[llama_3, metaspace, word_piece, None], ids=lambda make: make.__name__ if make else "gpt2")
def corpus(request, run, tmp_path, tokenizer_folder):
    """A small corpus made with a tokenizer of another kind each."""
    folder = tokenizer_folder
    if request.param is not None:
        tokenizer, trainer = request.param()
        tokenizer.train_from_iterator(TEXTS, trainer)
        folder = tmp_path / "tokenizer"
        folder.mkdir()
        tokenizer.save(str(folder / "tokenizer.json"))
    run({"a": write_jsonl(tmp_path / "a.jsonl", TEXTS)}, tokenizer=str(folder), validation_fraction=0.3)
    return Corpus(tmp_path / "corpus")


def test_autotokenizer_gives_the_ids_of_the_corpus_and_pads(corpus, tmp_path):
    from transformers import AutoTokenizer

    vocabulary = corpus.manifest.tokenizer.vocabulary_size
    export_tokenizer(corpus, tmp_path / "hf", 128, vocabulary)
    read_back = AutoTokenizer.from_pretrained(str(tmp_path / "hf"))
    assert len(read_back) == vocabulary
    assert read_back.pad_token_id == read_back.eos_token_id == corpus.manifest.tokenizer.end_of_document
    reference = tokenizers.Tokenizer.from_file(str(corpus.folder / "tokenizer.json"))
    for text in TEXTS:
        assert read_back.encode(text, add_special_tokens=False) == reference.encode(text, add_special_tokens=False).ids


def test_a_tokenizer_that_transformers_reads_differently_is_refused(corpus, tmp_path, monkeypatch):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    with pytest.raises(CorpusError, match=r"tokens from .*, the model knows 100; the tokenizer is not exported"):
        export_tokenizer(corpus, tmp_path / "small", 128, 100)

    def guessed(folder):
        other = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
        other.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=other)

    tokenizer = corpus.folder / "tokenizer.json"
    whole = tokenizer.read_text(encoding="utf-8")
    tokenizer.write_text(json.dumps({**json.loads(whole), "added_tokens": []}), encoding="utf-8")
    with pytest.raises(CorpusError, match=r"end-of-document token .* is a plain entry .*--weights-only"):
        export_tokenizer(corpus, tmp_path / "plain", 128, 1000)
    tokenizer.write_text(whole, encoding="utf-8")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", guessed)
    with pytest.raises(CorpusError, match=r"gives other ids than the corpus's tokenizer: \[.*it is not exported"):
        export_tokenizer(corpus, tmp_path / "other", 128, 1000)
    shutil.rmtree(tmp_path / "other")
