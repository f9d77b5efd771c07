"""A tokenizer, a corpus and Hugging Face folders small enough for a test."""

import json
import random

import torch

from autoscale_ds.corpus.inputs import DomainInput
from autoscale_ds.corpus.preprocessing import preprocess
from autoscale_ds.corpus.settings import PreprocessSettings
from autoscale_ds.corpus.tokenizers import train_tokenizer
from autoscale_ds.evaluation.harness import adapted
from autoscale_ds.evaluation.scoring import ModelScorer
from autoscale_ds.models.gpt2 import GPT2Config
from autoscale_ds.training.trained import text_to_ids

WORDS = ["the", "a", "man", "woman", "river", "stone", "light", "keeps", "turning", "under", "cold", "because", "it"]
WORDS += [
    "was",
    "not",
    "yet",
    "over",
    "when",
    "she",
    "said",
    "that",
    "water",
    "flows",
    "down",
    "to",
    "sea",
    "yes",
    "no",
]
VOCABULARY = 300


def sentences(count, seed):
    """Return sentences of common words."""
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) for _ in range(rng.randint(4, 12))).capitalize() + "." for _ in range(count)]


def tiny_tokenizer():
    """Return a byte-level BPE of 300 tokens; ``<|endoftext|>`` is 0."""
    return train_tokenizer((text.encode() for text in sentences(200, "words")), VOCABULARY)


def text_corpus(folder):
    """Write a corpus of two domains with its tokenizer; return its folder."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(tiny_tokenizer().json_text)
    domains = {}
    for name in ("web", "code"):
        path = folder / f"{name}.jsonl"
        texts = [" ".join(sentences(8, f"{name}{index}")) for index in range(150)]
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        domains[name] = DomainInput((str(path),))
    settings = PreprocessSettings(
        domains=domains, output=str(folder / "corpus"), tokenizer=str(folder), workers=1, validation_fraction=0.1
    )
    assert preprocess(settings) is not None
    return folder / "corpus"


def hf_folder(folder, context=64, uniform=False, tokenizer=None):
    """Write a folder of ``transformers.GPT2LMHeadModel`` with its tokenizer; random weights, or all logits equal."""
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

    from autoscale_ds.models.gpt2.hugging_face import hf_config

    tokenizer = tokenizer or tiny_tokenizer()
    size, end = tokenizer.info.vocabulary_size, tokenizer.info.end_of_document
    torch.manual_seed(11)
    model = GPT2LMHeadModel(hf_config(GPT2Config(2, 2, 32, context, size), end))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.0) if uniform else parameter.add_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.json_text)
    name = tokenizer.end_name
    made = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token=name, bos_token=name, pad_token=name
    )
    made.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer.json_text)
    return folder


def over(trained, batch_size=4):
    """Return lm-eval's model over ours, and its scorer as ``scorer``."""
    end = trained.tokenizer.info.end_of_document
    scorer = ModelScorer(trained.model, batch_size, end)
    made = adapted(scorer, lambda text: text_to_ids(trained.tokenizer, [text])[0], trained.tokenizer.decode, end)
    made.scorer = scorer
    return made
