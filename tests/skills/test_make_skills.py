"""The tool: the same bytes everywhere, text that ordinary preprocessing takes, and mistakes said in one line."""

import json

import pytest
from jobs import tool

from autoscale_ds.corpus import Corpus
from autoscale_ds.errors import ConfigError, CorpusError
from autoscale_ds.skills import parse_skill, read_held_out
from autoscale_ds.skills.folder import MakeSettings, make

# Of 300 samples and 20 held-out items. A generator that writes other bytes breaks runs that are to be compared.
PINNED = {
    "addition-plain": ["fd8c5e0bc6b17edc", "c9819ac3e26f8afa"],
    "addition-reversed": ["972751ebf47cb12d", "db2a849a2a23556b"],
    "addition-simplified": ["4576780a994d3f8d", "bc878347eccc8d3c"],
    "addition-detailed": ["2457674a3864dbc0", "819b947c553a2368"],
    "subtraction-plain": ["57b177b85e4b27ce", "553d2b680bc29775"],
    "subtraction-reversed": ["4a686acea05c9bb4", "48e912b634b5a658"],
    "subtraction-simplified": ["ed218137b7c41dad", "a52574059ee4d69c"],
    "subtraction-detailed": ["d97bcdf83c0598ac", "e51b64bdd7bf27e7"],
    "multiplication-plain": ["5dc45d4f02315472", "2b5419dc9fb128e4"],
    "multiplication-reversed": ["0706fe680531ff61", "eb457c0a29037839"],
    "multiplication-simplified": ["00042f2d854a03cd", "cc2afe7e2905e062"],
    "multiplication-detailed": ["d1edc91d38e5133e", "f583a69c751a7ce3"],
    "aggregated-plain": ["39dcf5519d138ee5", "703ff081a442800a"],
    "aggregated-reversed": ["d92bcd6a5b5c94c1", "35ac3362b2849985"],
    "parity": ["7f14555c8bed6245", "d82b6516c2676971"],
    "lego-2": ["dbb0d35631b1d63d", "facd7ee1b34360b5"],
    "random": ["1e1f3b470bbd0529", "24eec29dfff6c8c4"],
}
SMALL = MakeSettings(samples=300, held_out_items=20)


def generators(*texts):
    return {name: generator for text in texts for name, generator in parse_skill(text).items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("skills") / "all"
    kinds = [f"{kind}:format=all" for kind in ("addition", "subtraction", "multiplication", "aggregated")]
    made = make(path, generators(*kinds, "parity:tasks=4", "lego:depth=2", "random"), SMALL)
    assert json.loads((path / "skills.json").read_text()) == made
    return path


def test_the_bytes_are_the_same_on_every_machine(folder):
    domains = json.loads((folder / "skills.json").read_text())["domains"]
    sums = {name: [entry[split]["sha256"][:16] for split in ("train", "held_out")] for name, entry in domains.items()}
    assert sums == PINNED


def test_more_samples_begin_with_the_fewer(folder, tmp_path):
    make(tmp_path / "more", generators("addition"), MakeSettings(samples=700, held_out_items=20))
    more, fewer = ((path / "addition-plain/train.jsonl").read_bytes() for path in (tmp_path / "more", folder))
    assert more.startswith(fewer)
    assert more.count(b"\n") == 700


def test_held_out_problems_are_named_by_skill_and_their_text_is_prompt_and_completion(folder):
    problems = read_held_out(folder)
    counts = {}
    for problem in problems:
        counts[problem.skill] = counts.get(problem.skill, 0) + 1
    assert {f"parity-{task}" for task in range(4)} <= set(counts)
    assert set(counts.values()) == {20}
    lines = (folder / "lego-2/held_out.jsonl").read_text().splitlines()
    assert all(r["text"] == r["prompt"] + r["completion"] for r in map(json.loads, lines))


def test_the_tool_makes_domains_that_preprocessing_takes(tmp_path):
    skills = tmp_path / "skills"
    done = tool("make_skills.py", skills, "--skill", "addition:format=all,digits=2", "--samples", "400")
    assert done.returncode == 0, done.stderr
    assert "addition-detailed" in done.stdout
    assert f"{skills}/skills.json" in done.stdout
    names = [f"addition-{form}" for form in ("plain", "reversed", "simplified", "detailed")]
    domains = [part for name in names for part in ("--domain", f"{name}={skills / name / 'train.jsonl'}")]
    target = ["--target", f"asked={skills}/addition-plain/held_out.jsonl"]
    options = ["--train-tokenizer", "257", "--validation-documents", "20", "--workers", "1"]
    done = tool("preprocess_domains.py", "--output", tmp_path / "corpus", *options, *domains, *target)
    assert done.returncode == 0, done.stderr
    corpus = Corpus(tmp_path / "corpus")
    assert corpus.domains == names
    text = [json.loads(line)["text"] for line in (skills / "addition-plain/train.jsonl").read_text().splitlines()]
    tokens = sum(corpus.tokens_of("addition-plain", split) for split in ("train", "validation"))
    assert tokens == sum(len(each) + 1 for each in text)  # a token a character, and the end

    again = tool("make_skills.py", skills, "--skill", "lego")
    assert (again.returncode, again.stderr.strip()) == (
        2,
        f"error: {skills} holds skills already; give --overwrite, or another folder",
    )
    assert (skills / "skills.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--skill", "additon"], "unknown skill 'additon'; did you mean addition?"),
        (["--skill", "lego", "--skill", "lego:length=3"], "two skills are called lego-1; name one of them"),
        (["--skill", "lego", "--samples", "0"], "'0' given, expected a whole number of at least 1"),
        (["--skill", "lego", "--held-out-share", "1"], "expected a finite number above 0 and at most 0.9"),
        (["--skill", "../x=lego"], "domain name '../x'"),
        ([], "the following arguments are required: --skill"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, arguments, message):
    done = tool("make_skills.py", tmp_path / "skills", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "skills").exists()


def test_a_folder_that_is_unfinished_or_damaged_is_refused(folder, tmp_path):
    with pytest.raises(
        ConfigError, match=r"has no skills\.json, expected a folder that tools/make_skills\.py finished"
    ):
        read_held_out(tmp_path)
    make(tmp_path / "one", generators("lego"), SMALL)
    path = tmp_path / "one/lego-1/held_out.jsonl"
    path.write_text(path.read_text().replace('"completion"', '"answer"', 1))
    with pytest.raises(CorpusError, match=r"held_out\.jsonl:1: 'completion' is None, expected text; make it again"):
        read_held_out(tmp_path / "one")
    path.unlink()
    with pytest.raises(CorpusError, match=r"cannot read .*held_out\.jsonl: No such file"):
        read_held_out(tmp_path / "one")
    manifest = tmp_path / "one/skills.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(ConfigError, match=r"skills\.json is of version 9, expected 1"):
        read_held_out(tmp_path / "one")


def test_a_domain_without_held_out_problems_leaves_no_finished_folder(tmp_path):
    with pytest.raises(ConfigError, match="none of 20,000 problems is a held-out one"):
        make(tmp_path / "none", generators("addition:digits=1"), MakeSettings(10, 10, 1e-9))
    assert not (tmp_path / "none/skills.json").exists()
    assert not list((tmp_path / "none").rglob("*.jsonl*"))
