"""Signals to a command that a script started in the background, where the shell has it ignore Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

WAITS = """
import asyncio, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from narupa_client.cli.options import run

async def work():
    print("ready", flush=True)
    await asyncio.Event().wait()

try:
    run(work(), interrupted=0)
except Exception as error:
    raise SystemExit(error.exit_code)
"""


def test_an_interrupt_ends_a_background_job() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        job.send_signal(signal.SIGINT)
        assert job.wait(10) == 0


ENDS = """
import asyncio, os, signal, sys
from narupa_client.cli.options import run

async def work():
    os.kill(os.getpid(), int(sys.argv[1]))
    while True:
        await asyncio.sleep(1)

try:
    run(work(), interrupted=0)
except Exception as error:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    raise SystemExit(error.exit_code)
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=lambda first: first.name)
def test_a_further_signal_while_python_leaves_changes_nothing(first: signal.Signals) -> None:
    ended = subprocess.run([sys.executable, "-c", ENDS, str(int(first))], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "")
