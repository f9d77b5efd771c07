"""From a finished build to the corpus folder: nothing of an old corpus is removed before the new one is complete.

The new corpus is built below ``.work/build``. When it is whole, ``.work/publish.json`` lists the files to remove and
to move; from then on the change is carried through, by the next start if this one is killed, and ``corpus.json``
comes last. A shard is removed or replaced only if preprocessing made it: it lies in the folder under a name that
preprocessing gives, and ``corpus.json`` or ``preprocessing.json`` there holds its checksum.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from autoscale_ds.corpus.disk import told_when_writing_fails
from autoscale_ds.corpus.indexed import shard_files
from autoscale_ds.corpus.manifest import MANIFEST_NAME, SPLITS, Manifest
from autoscale_ds.corpus.store import file_sha256
from autoscale_ds.corpus.tokenizer_files import TOKENIZER_FILE
from autoscale_ds.corpus.tokenizers import TextTokenizer
from autoscale_ds.errors import CorpusError
from autoscale_ds.files import write_json

REPORT_NAME = "preprocessing.json"
ERRORS_NAME = "errors.jsonl"
WORK_NAME = ".work"
LOCK_NAME = "lock"
BUILD_NAME = f"{WORK_NAME}/build"
_PLAN_NAME = f"{WORK_NAME}/publish.json"
_SIDE_FILES = (REPORT_NAME, ERRORS_NAME, TOKENIZER_FILE)
# What a run keeps in `.work` for its rerun.
_WORK_NAMES = re.compile(r"build|pieces|shards|publish\.json|tokenizer-[0-9a-f]{64}\.json")
_SHARD_NAME = re.compile(rf"[A-Za-z0-9_][^/]*/(?:{'|'.join(SPLITS)})-\d{{5,}}")


def is_own_name(name: str) -> bool:
    """Tell whether preprocessing gives this name, relative to the corpus folder, to something it makes there."""
    prefix, _, ending = name.rpartition(".")
    is_shard = ending in ("bin", "idx") and _SHARD_NAME.fullmatch(prefix) is not None
    return is_shard or name in (MANIFEST_NAME, *_SIDE_FILES) or name.partition("/")[0] == WORK_NAME


def publish(folder: Path, files: Sequence[str]) -> None:
    """Put the files of the build in their places and remove what the old corpus had besides.

    Parameters
    ----------
    folder : Path
        Corpus folder.
    files : sequence of str
        All files of the new corpus, relative to the build, ``corpus.json`` among them.
    """
    new = {*files}
    with told_when_writing_fails(folder):
        write_json(
            folder / _PLAN_NAME, {"remove": [name for name in own_files(folder) if name not in new], "move": files}
        )
    finish(folder)


def finish(folder: Path) -> None:
    """Carry through a publication that was begun; without one, do nothing."""
    path = folder / _PLAN_NAME
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return
    except ValueError:
        raise CorpusError(
            f"{path} is damaged, so that the corpus it was to complete cannot be: remove {path.parent}, then run again"
        ) from None
    build = folder / BUILD_NAME
    with told_when_writing_fails(folder):
        if (build / MANIFEST_NAME).exists():
            _remove(folder, [MANIFEST_NAME, *plan["remove"]])
            for name in sorted(plan["move"], key=lambda name: name == MANIFEST_NAME):
                _move(build / name, folder / name)
        _clear_work(folder)


def _clear_work(folder: Path) -> None:
    """Remove what is kept for a rerun; the lock file is its holder's, and other files are not ours."""
    children = [child for child in (folder / WORK_NAME).iterdir() if _WORK_NAMES.fullmatch(child.name)]
    for child in sorted(children, key=lambda child: child.name == Path(_PLAN_NAME).name):  # the plan last
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def own_files(folder: Path) -> list[str]:
    """Return the files of the folder that preprocessing made, relative to it, without ``corpus.json``."""
    shards = [prefix for prefix, digest in _recorded(folder).items() if _is_own(folder, prefix, digest)]
    files = [str(path) for prefix in shards for path in shard_files(Path(prefix))]
    return [name for name in (*files, *_own_side_files(folder)) if (folder / name).is_file()]


def _own_side_files(folder: Path) -> tuple[str, ...]:
    """Return the names, beside shards and ``corpus.json``, whose files are preprocessing's in this folder."""
    if read_report(folder):
        return _SIDE_FILES
    return (TOKENIZER_FILE,) if (folder / MANIFEST_NAME).exists() else ()


def remove_own_files(folder: Path) -> None:
    """Remove the old corpus but the files that tell what is left of it, should this be cut short."""
    with told_when_writing_fails(folder):
        files = own_files(folder)
        write_json(folder / REPORT_NAME, {**read_report(folder), "shards": _recorded(folder)})
        _remove(folder, [MANIFEST_NAME, *(name for name in files if name not in _SIDE_FILES)])


def refuse_foreign(folder: Path, files: Iterable[str]) -> None:
    """Raise CorpusError if a file of the new corpus would replace one that preprocessing did not make."""
    side = _own_side_files(folder)
    there = [name for name in files if name != MANIFEST_NAME and name not in side and os.path.lexists(folder / name)]
    own = own_files(folder) if there else []  # which reads shards
    for name in there:
        if name not in own:
            raise CorpusError(
                f"{folder / name} is in the way: neither {MANIFEST_NAME} nor {REPORT_NAME} there tells that "
                "preprocessing made it; move it, or choose another --output"
            )


def refuse_foreign_tokenizer(folder: Path, tokenizer: TextTokenizer) -> None:
    """Raise CorpusError if the folder holds another ``tokenizer.json`` that preprocessing did not put there."""
    try:
        same = (folder / TOKENIZER_FILE).read_text(encoding="utf-8") == tokenizer.json_text
    except (OSError, UnicodeDecodeError):
        same = False
    if not same:
        refuse_foreign(folder, [TOKENIZER_FILE])


def shard_digests(manifest: Manifest) -> dict[str, list[str]]:
    """Return the SHA-256 of ``.bin`` and ``.idx`` of each shard by prefix."""
    return {shard.prefix: [shard.sha256_bin, shard.sha256_idx] for shard in manifest.shards()}


def _recorded(folder: Path) -> dict[str, list[str]]:
    """Return what the folder's own files say of its shards: those of ``corpus.json`` and of the last preprocessing."""
    try:
        current = shard_digests(Manifest.load(folder))
    except CorpusError:  # none, or one that cannot be read
        current = {}
    return {**(read_report(folder).get("shards") or {}), **current}


def read_report(folder: Path) -> dict[str, Any]:
    """Return what ``preprocessing.json`` holds; an empty mapping where it cannot be read, or is not ours."""
    try:
        report = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(report, dict) or not isinstance(report.get("shards", {}), dict):
        return {}
    is_whole = all(isinstance(report.get(key), dict) for key in ("settings", "inputs"))
    return report if is_whole or [*report] == ["shards"] else {}  # alone while --remove-first is at work


def _is_own(folder: Path, prefix: str, digests: Sequence[str]) -> bool:
    """Tell whether a shard is the recorded one, or was before one of its files was damaged."""
    files = shard_files(folder / prefix)
    if not _SHARD_NAME.fullmatch(prefix) or any(path.is_symlink() for path in files):
        return False
    # The index first: it is small, and it is what tells one shard from another of the same size.
    pairs = zip(reversed(files), reversed(digests), strict=True)
    return any(path.is_file() and file_sha256(path) == digest for path, digest in pairs)


def _remove(folder: Path, files: Sequence[str]) -> None:
    """Remove files of the folder, and the domains' folders that are empty then."""
    for name in files:
        (folder / name).unlink(missing_ok=True)
    for domain in {Path(name).parent for name in files} - {Path()}:
        with contextlib.suppress(OSError):
            (folder / domain).rmdir()


def _move(source: Path, target: Path) -> None:
    """Move a file unless that was done before; a domain's folder may be a link to another disk."""
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source, target)
