import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoscale_ds.stream.journal import read_events

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("launch", "ds_configs", "benchmarks")),
]
FOLDERS = "autoscale_ds|benchmarks|docs|ds_configs|examples|launch|scripts|tests|tools"


def run_block(name, folder):
    """Run the commands below a marker as they stand, in another folder than runs/tour; return what they print."""
    marked = rf"<!-- {name} -->\n```bash\n(.*?)```"
    (block,) = [block for page in PAGES for block in re.findall(marked, page.read_text(), re.DOTALL)]
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


@pytest.mark.job
@pytest.mark.timeout(1600)
def test_a_runs_week_goes_as_it_stands_and_every_sample_is_accounted_for(folder):
    if not (folder / "corpus" / "corpus.json").exists():
        pytest.skip("needs the corpus of the tour")
    said = run_block("week", folder)  # ends with a diff of samples and replay
    assert "generated_text" in said
    events = read_events(folder / "week" / "mixture" / "journal.jsonl")
    assert [event.source for event in events] == ["config", "start", "user", "start", "user", "user", "start"]
    assert sorted(events[-1].weights) == ["markup", "prose", "python"]
    assert (folder / "compared" / "index.html").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_in_the_text_exists(page):
    text = page.read_text()
    quoted = re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text)
    in_commands = re.findall(rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]+\.(?:py|json|yaml|sbatch|sh|md))\b", text)
    assert [path for path in quoted + in_commands if not (ROOT / path).exists()] == []


def test_the_readme_links_to_every_page_of_docs():
    linked = re.findall(r"\]\((docs/\w+\.md)\)", (ROOT / "README.md").read_text())
    assert set(linked) == {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}


def anchors(page):
    """Return the anchors GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
