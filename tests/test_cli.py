import argparse
import ast
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoscale_ds import cli

ROOT = Path(__file__).parents[1]

RANK = """
import atexit, threading, time
from autoscale_ds import cli
atexit.register(print, "handled")
threading.Thread(target=time.sleep, args=(600,)).start()
cli.run(lambda: print("said") or 75, tear_down=False)
"""


def test_a_rank_ends_at_once_with_its_code_all_it_said_and_its_exit_handlers():
    done = subprocess.run([sys.executable, "-c", RANK], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (75, "said\nhandled\n", "")


def test_a_mistake_of_a_rank_is_one_line_and_code_2():
    code = RANK.replace('print("said") or 75', 'open("/nowhere/at/all")')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (2, "handled\n")
    assert done.stderr == "error: [Errno 2] No such file or directory: '/nowhere/at/all'\n"


def python(code, *arguments, **environment):
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, timeout=100, check=False, env=environment)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_text_that_cannot_be_encoded_is_escaped(tmp_path, encoding):
    code = """
import os, sys
from rich.table import Table
from autoscale_ds import cli
from autoscale_ds.errors import CorpusError
def main():
    (name,) = os.listdir(sys.argv[1])
    print("printed", name, chr(0xD800))
    table = Table("column", title=name)
    table.add_row(name)
    cli.console(width=80).print(table)
    cli.console(stderr=True, width=80).print(name)
    raise CorpusError(f"refused {name} {chr(0xD800)}")
cli.run(main)
"""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / os.fsdecode(b"caf\xe9")).touch()
    done = python(code, str(tmp_path / "folder"), PYTHONIOENCODING=encoding)
    assert done.returncode == 2
    assert b"printed caf\\udce9 \\ud800" in done.stdout
    assert done.stdout.count(b"caf\\udce9") == 3
    assert done.stderr == b"caf\\udce9\nerror: refused caf\\udce9 \\ud800\n"


def test_too_little_memory_is_one_line_that_says_what_to_lower():
    code = """
import numpy
from autoscale_ds import cli
cli.run(lambda: numpy.empty(2**50), memory_advice="lower --runs")
"""
    done = python(code)
    assert done.returncode == 2
    assert done.stderr.startswith(
        b"error: the memory of this machine (RAM) did not suffice (Unable to allocate 8.00 PiB"
    )
    assert done.stderr.endswith(b"; lower --runs, or use a larger one\n")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("parse", "accepted"),
    [
        (cli.natural, {"0": 0, "1e3": 1000, "9223372036854775807": 2**63 - 1}),
        (cli.positive_int, {"1": 1, "10_0": 100}),
        (cli.whole(-5, 5), {"-5": -5, "5.0": 5}),
        (cli.positive, {"1e-300": 1e-300, "10e9": 1e10}),
        (cli.share, {"0": 0.0, "1": 1.0}),
        (cli.real(least=0, infinite=True), {"inf": math.inf, "0": 0.0}),
    ],
)
def test_numbers_within_their_bounds_are_read(parse, accepted):
    assert {text: parse(text) for text in accepted} == accepted


@pytest.mark.parametrize(
    ("parse", "texts", "message"),
    [
        (cli.natural, ["-1", "nan", "inf", "1.5", "9" * 6000, "1e400", "²", "", "2e19"], "whole number of at least 0$"),
        (cli.positive_int, ["0", "-1"], "'.*' given, expected a whole number of at least 1$"),
        (cli.whole(1, 4096), ["4097"], "'4097' given, expected a whole number of at least 1 and at most 4,096$"),
        (cli.positive, ["0", "-0.0", "-1", "nan", "inf", "1e400", "x", ""], "a finite number above 0$"),
        (cli.share, ["-0.1", "1.1", "nan"], "a finite number at least 0 and at most 1$"),
        (cli.real(least=0, infinite=True), ["nan", "-inf"], "a number at least 0$"),
    ],
)
def test_numbers_out_of_their_bounds_are_refused(parse, texts, message):
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            parse(text)


def modules():
    return [path for folder in ("tools", "launch", "examples") for path in sorted((ROOT / folder).glob("*.py"))]


def called(path, *names):
    """Return the calls of these names in a file."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func).split(".")[-1] in names]


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.name)
def test_entry_points_print_text_as_it_is(path):
    assert not called(path, "Console"), "use cli.console(): rich reads brackets of a path as markup"
    for column in called(path, "TextColumn"):
        assert "markup=False" in ast.unparse(column)


@pytest.mark.parametrize("path", [*modules(), ROOT / "autoscale_ds/report/mixture_options.py"], ids=lambda p: p.name)
def test_every_number_of_a_command_line_is_checked(path):
    assert not called(path, "ArgumentParser"), "use cli.CommandLine: a mistake is one line"
    for option in called(path, "add_argument"):
        kinds = {keyword.arg: ast.unparse(keyword.value) for keyword in option.keywords}
        if "--local_rank" not in ast.unparse(option):
            assert kinds.get("type") not in ("int", "float"), f"{ast.unparse(option)}: use cli.natural, cli.positive, …"


ALL_TOOLS = [
    *[("tools/inspect_corpus.py", option) for option in ("--budget", "--sequence-length")],
    *[
        ("tools/plan_run.py", option)
        for option in ("--gpus", "--gpus-per-node", "--memory", "--peak-flops", "--efficiency", "--bucket", "--top")
    ],
    *[("tools/preprocess_domains.py", option) for option in ("--shard-tokens", "--workers", "--validation-documents")],
    *[(f"tools/{name}.py", "--step") for name in ("export_hf", "convert_checkpoint")],
    ("tools/report.py", "--target"),
    ("tools/swap_weights.py", "--timeout"),
    *[("tools/fit_mixture.py optimize", option) for option in ("--tokens", "--floor", "--kl", "--seed")],
    *[("tools/predict_scores.py predict", option) for option in ("--parameters", "--tokens")],
    *[("launch/sweep.py plan", option) for option in ("--tokens", "--seeds", "--first-seed", "--runs", "--low")],
    *[("launch/sweep.py work", option) for option in ("--workers", "--lease-seconds")],
]


@pytest.mark.parametrize("value", ["nan", "-1"])
@pytest.mark.parametrize("tool", sorted({tool for tool, _ in ALL_TOOLS}))
def test_a_number_out_of_its_bounds_is_one_line_and_code_2(tool, value):
    options = [option for name, option in ALL_TOOLS if name == tool]
    code = f"""
import runpy, sys
for option in {options!r}:
    sys.argv = [*{tool!r}.split(), f"{{option}}={value}"]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        assert end.code == 2, (option, end.code)
"""
    done = python(code.replace("launch/", f"{ROOT}/launch/").replace("tools/", f"{ROOT}/tools/"))
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 0, done.stderr.decode()
    assert [line.split(":")[:2] for line in lines] == [["error", f" {option}"] for option in options]
    assert all(f"'{value}' given, expected a" in line for line in lines)


def test_a_domain_whose_weight_is_set_twice_is_refused(tmp_path):
    event = {"version": 0, "effective_step": 0, "weights": {"a": 0.5, "b": 0.5}, "source": "start", "reason": ""}
    (tmp_path / "mixture").mkdir()
    (tmp_path / "mixture" / "journal.jsonl").write_text(json.dumps({**event, "time": "", "tokens_seen": 0}) + "\n")
    command = [sys.executable, str(ROOT / "tools/swap_weights.py"), str(tmp_path), "--set", "a=0.3", "--set", "a=0.4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (2, "error: --set gives 'a' twice, 0.3 and 0.4; leave one out\n")


def test_json_for_machines_has_null_for_what_is_no_number():
    value = {"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "name": "caf\u00e9", "n": None}
    assert json.loads(cli.json_text(value), parse_constant=pytest.fail) == {
        "a": [1.5, None, [None, {"b": None}]],
        "name": "caf\u00e9",
        "n": None,
    }
