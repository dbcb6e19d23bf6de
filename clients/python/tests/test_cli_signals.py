"""Signals to a command that a script started in the background, where the shell has it ignore Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys

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
