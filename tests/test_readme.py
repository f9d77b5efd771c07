import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoscale_ds.stream.journal import read_events

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def run_block(name, folder):
    """Run the commands below a marker as they stand, in another folder than runs/tour; return what they print."""
    (block,) = re.findall(rf"<!-- {name} -->\n```bash\n(.*?)```", README, re.DOTALL)
    script = "set -euo pipefail\n" + block.replace("runs/tour", str(folder))
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tour")


@pytest.mark.job
@pytest.mark.timeout(1600)
def test_the_commands_of_the_tour_run_as_they_stand(folder):
    said = run_block("tour", folder)
    assert "0 0 " in said
    assert "python  0.333333 -> 0.600000" in said


@pytest.mark.job
@pytest.mark.timeout(1600)
def test_the_loop_from_plan_to_report_runs_as_it_stands(folder):
    if not (folder / "corpus" / "corpus.json").exists():
        pytest.skip("needs the corpus of the tour")
    said = run_block("loop", folder)
    assert "14 points of 14 finished runs of 14" in said
    assert "noise unknown" in said
    events = read_events(folder / "follow" / "mixture" / "journal.jsonl")
    assert [event.source for event in events[1:]] == ["controller:autoscale"] * (len(events) - 1)
    assert len(events) > 3
    page = (folder / "report" / "index.html").read_text()
    assert "Optimal weights against scale" in page
    assert "towards the optimum for" in page


def test_every_file_and_folder_the_readme_names_is_there():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    paths = re.findall(r"`((?:autoscale_ds|tools|launch|ds_configs|benchmarks|examples)/[\w./]*)`", README)
    assert links
    assert [path for path in links + paths if not (ROOT / path).exists()] == []
