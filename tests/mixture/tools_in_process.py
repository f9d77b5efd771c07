"""The tools of fitted laws and scores, run in this process."""

import io
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def in_process(name: str, *arguments: object, code: int = 0) -> str:
    """Run one of tools/; return stdout, or the one line of stderr when it is meant to fail."""
    tool, out, err = str(ROOT / "tools" / name), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [tool, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(tool, run_name="__main__")
    assert (ended.value.code or 0) == code, err.getvalue()
    return out.getvalue() if code == 0 else err.getvalue()
