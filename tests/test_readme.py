import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.job
def test_the_commands_of_the_tour_run_as_they_stand(tmp_path):
    (tour,) = re.findall(r"<!-- tour -->\n```bash\n(.*?)```", README, re.DOTALL)
    script = "set -euo pipefail\n" + tour.replace("runs/tour", str(tmp_path))
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "0 0 " in done.stdout
    assert "python  0.333333 -> 0.600000" in done.stdout


def test_every_file_and_folder_the_readme_names_is_there():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    paths = re.findall(r"`((?:autoscale_ds|tools|launch|ds_configs|benchmarks|examples)/[\w./]*)`", README)
    assert links
    assert [path for path in links + paths if not (ROOT / path).exists()] == []
