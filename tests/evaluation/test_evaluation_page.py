"""The commands of docs/evaluation.md run as they stand, on a run of three steps and the tasks' documents."""

import re
import shlex
import subprocess
import sys

import pytest
import score_runs
from jobs import ROOT, tool
from tiny_data import LONG
from tiny_models import text_corpus

pytest.importorskip("lm_eval", reason="needs lm-eval (pip install 'autoscale_ds[eval]')")

PAGE = (ROOT / "docs" / "evaluation.md").read_text()


def commands():
    """Return the commands of the page, one line each, without what follows a # or >."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line.partition(" > ")[0], comments=True))]


@pytest.fixture
def places(make_trainer, data, tmp_path):
    """What the page calls RUN, FOLDER, exported and so on."""
    corpus = text_corpus(tmp_path / "text")
    weights = {"web": 0.5, "code": 0.5}
    trainer = make_trainer(budget_tokens=3 * 256, **{"data.corpus": str(corpus), "mixture.weights": weights})
    assert trainer.fit() == 0
    trainer.close()
    (tmp_path / "prompts.txt").write_text("the river\nthe sea\n")
    (tmp_path / "book.txt").write_text(LONG)
    boolq = score_runs.ladder(sizes=score_runs.SIZES[:3], lengths=score_runs.LENGTHS[:2]).with_tasks(["pairs"])
    score_runs.write(boolq, tmp_path / "small_runs.csv")
    score_runs.write(score_runs.ladder((score_runs.LARGE,), (20.0,)).with_tasks(["pairs"]), tmp_path / "large_runs.csv")
    for name in ("small", "large"):
        path = tmp_path / f"{name}_runs.csv"
        path.write_text(path.read_text().replace("/pairs", "/boolq"))
    names = ["exported", "prompts.txt", "book.txt", "small_runs.csv", "large_runs.csv", "scores.json", "fit.png"]
    run = str(trainer.folder.path)
    known = {name: str(tmp_path / name) for name in names}
    known |= {"RUN": run, "FOLDER": str(data), "4000": "3", "256": "16"}
    return known


@pytest.mark.slow
def test_the_commands_of_the_page_run_as_they_stand(places):
    ran = 0
    for words in commands():
        if words[0] == "torchrun":  # test_evaluate_tool.py starts two ranks
            continue
        assert words[0] == "python"
        done = tool(words[1].removeprefix("tools/"), *[places.get(word, word) for word in words[2:]])
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
        assert done.stdout, words  # perhaps nothing but spaces: the model is that young
        ran += 1
    assert ran >= 11
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    code = snippet.replace('"exported"', repr(places["exported"]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Once upon a time")
