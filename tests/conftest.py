"""What tests of several rooms share: small corpora with known content, and real training jobs."""

import os
import sys
from pathlib import Path
from unittest import mock

# Tiny models gain nothing from threads, and threads that spin for each other on a busy machine cost a factor of ten.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As an active environment has it: batch files say `python`, and a second version of ninja compiles every op again.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import numpy as np
import pytest
from jobs import DS, SIZES, settings

from autoscale_ds import config
from autoscale_ds.corpus import IndexedWriter, Manifest, ShardInfo, TokenizerInfo, file_sha256
from autoscale_ds.corpus.indexed import shard_files
from autoscale_ds.training.config import RunConfig
from autoscale_ds.training.ds_config import resolve

VOCABULARY = 97


def pytest_collection_modifyitems(config, items):
    """Let several test processes begin with the longest files, so that none is left alone with one at the end.

    The longest are those whose tests are given most time; then come files of jobs, then of many fits.
    """
    if hasattr(config, "workerinput"):  # of pytest-xdist, which hands out files in this order
        length_by_file = {}
        for item in items:
            length_by_file[item.path] = max(_length(item), length_by_file.get(item.path, ()))
        items.sort(key=lambda item: length_by_file[item.path], reverse=True)


def _length(item):
    timeout = item.get_closest_marker("timeout")
    seconds = timeout.args[0] if timeout else float(item.config.getini("timeout"))
    return seconds, *(item.get_closest_marker(name) is not None for name in ("job", "slow"))


def write_corpus(
    folder,
    tokens_by_domain,
    validation_tokens=600,
    seeds=None,
    tokenizer="random",
    vocabulary=VOCABULARY,
    targets=(),
    tasks=(),
):
    """Write a finished corpus of random documents; each domain prefers its own tokens, so that losses differ.

    A domain's training split lies in two shards, so that windows cross from one into the next. A domain of no tokens is
    left out, and the others are as with it; ``seeds`` gives a domain other text. Targets and tasks prefer the tokens of
    the first domain.
    """
    domains = {}
    for index, (name, tokens) in enumerate(tokens_by_domain.items()):
        if not tokens:
            continue
        rng = np.random.default_rng([(seeds or {}).get(name, 0), index])
        (folder / name).mkdir(parents=True)
        first = _write_shard(folder, f"{name}/train-00000", tokens // 3, rng, index)
        second = _write_shard(folder, f"{name}/train-00001", tokens - tokens // 3, rng, index)
        held_out = _write_shard(folder, f"{name}/validation-00000", validation_tokens, rng, index)
        domains[name] = {"train": (first, second), "validation": (held_out,)}
    measured = {}
    for number, name in enumerate(targets):
        (folder / name).mkdir()
        rng = np.random.default_rng([99, number])
        measured[name] = (_write_shard(folder, f"{name}/validation-00000", validation_tokens, rng, 0),)
    items = {name: _write_task(folder, name, np.random.default_rng([98, n])) for n, name in enumerate(tasks)}
    Manifest(TokenizerInfo(tokenizer, vocabulary, 0), domains, targets=measured, tasks=items).save(folder)
    return folder


def _write_task(folder, name, rng, items=23):
    """Write prompts of 1 to 40 tokens and completions of 1 to 5, three bytes a token."""
    lengths = [length for _ in range(items) for length in (int(rng.integers(1, 41)), int(rng.integers(1, 6)))]
    (folder / name).mkdir()
    with IndexedWriter(folder / name / "validation-00000", np.dtype("<u2")) as texts:
        for length in lengths:
            texts.add_document(rng.integers(1, 11, length))
    with IndexedWriter(folder / name / "validation-00001", np.dtype("<i4")) as sizes:
        sizes.add_document(3 * np.array(lengths[1::2]))
    return (
        ShardInfo(f"{name}/validation-00000", sum(lengths), 2 * items, 3 * sum(lengths[1::2]), *_sums(texts)),
        ShardInfo(f"{name}/validation-00001", items, 1, 0, *_sums(sizes)),
    )


def _sums(writer):
    return writer.sha256_bin, writer.sha256_idx


def _write_shard(folder, prefix, tokens, rng, index):
    favourites = np.arange(1 + 10 * index, 11 + 10 * index) % VOCABULARY
    body = np.where(rng.random(tokens) < 0.7, rng.choice(favourites, tokens), rng.integers(1, VOCABULARY, tokens))
    cuts = np.arange(0, tokens, 50)
    with IndexedWriter(folder / prefix, np.dtype("<u2")) as writer:
        for start in cuts:
            document = body[start : start + 50].copy()
            document[-1] = 0
            writer.add_document(document)
    sums = [file_sha256(path) for path in shard_files(folder / prefix)]
    return ShardInfo(prefix, tokens, len(cuts), 4 * tokens, *sums)


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """Three domains of 9,000, 5,000 and 2,000 training tokens."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), SIZES)


@pytest.fixture(scope="session")
def measured_corpus(tmp_path_factory):
    """The same with a target, ``exams``, and a task, ``quiz``."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), SIZES, targets=("exams",), tasks=("quiz",))


@pytest.fixture(scope="session")
def corpus_of(tmp_path_factory):
    """Return ``write_corpus`` into a folder of its own."""
    return lambda *sizes, **changes: write_corpus(tmp_path_factory.mktemp("corpus"), *sizes, **changes)


@pytest.fixture(scope="session")
def one_rank():
    """Join a world of one in the test process: real engine, real files, no process to start."""
    import warnings

    from autoscale_ds.training.distributed import ranks_from_environment
    from autoscale_ds.training.engine import start_distributed, stop_distributed

    with mock.patch.dict(os.environ), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of DeepSpeed's own import
        ranks = ranks_from_environment()
        device = start_distributed(ranks)
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            del os.environ[name]  # jobs that tests start are no ranks of this world
        yield ranks, device
        stop_distributed()


@pytest.fixture
def make_trainer(one_rank, small_corpus, tmp_path):
    """Return a function that builds a real trainer from changed settings."""
    from autoscale_ds.training.trainer import Trainer

    ranks, device = one_rank
    made = []

    def make(ds=None, folder="run", accept_new_text=False, **changes):
        run = config.build(RunConfig, settings(tmp_path / folder, small_corpus, **changes))
        made.append(Trainer(run, resolve(ds or DS, run, 1), ranks, device, accept_new_text=accept_new_text))
        return made[-1]

    yield make
    for trainer in made:
        trainer.folder.release()


@pytest.fixture
def until(make_trainer):
    """Return a function that trains a run until some step, and returns the finished trainer."""

    def train(steps, **changes):
        changes.setdefault("budget_tokens", steps * 256)
        trainer = make_trainer(**{"schedule.kind": "constant_with_cooldown", **changes})
        try:
            assert trainer.fit() == 0
        finally:
            trainer.close()
        return trainer

    return train
