import subprocess
import sys

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
