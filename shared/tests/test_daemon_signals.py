"""What a signal does to a service that has not finished starting."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

# A service whose start waits for something that never comes, and which says when it was told to clean up.
NEVER_READY = """
import asyncio, contextlib, sys
from narupa_shared.config import ServiceConfig
from narupa_shared.daemon import run

class App:
    service_names = ()
    verifier = None

    def add_to(self, server):
        pass

    @contextlib.asynccontextmanager
    async def running(self, bound):
        try:
            print("starting", flush=True)
            await asyncio.Event().wait()
            yield
        finally:
            print("cleaned up", flush=True)

    async def drain(self):
        pass

sys.exit(run("test", ServiceConfig(), lambda config: App()))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_that_still_starts_stops_at_once_and_cleans_up(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", NEVER_READY], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == "starting\n"
        began = time.monotonic()
        service.send_signal(number)
        assert service.wait(10) == 0
        assert time.monotonic() - began < 3
        assert service.stdout.read() == "cleaned up\n"


# A service that ends of its own accord, while Python takes its time to leave.
LEAVES = """
import asyncio, atexit, contextlib, gc, sys
from narupa_shared.config import ServiceConfig
from narupa_shared.daemon import run

class App:
    service_names = ()
    verifier = None

    def add_to(self, server):
        pass

    @contextlib.asynccontextmanager
    async def running(self, bound):
        yield

    async def until_end(self, stop):
        assert gc.get_freeze_count() > 10_000, "what was loaded counts as garbage that may be"

    async def drain(self):
        pass

def leave():
    print("leaving", flush=True)
    sys.stdin.readline()

atexit.register(leave)
sys.exit(run("test", ServiceConfig(), lambda config: App()))
"""


def test_a_service_that_has_ended_by_itself_is_not_killed_by_who_asks_it_to_end() -> None:
    command = [sys.executable, "-c", LEAVES]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None and service.stdin is not None
        assert service.stdout.readline() == "leaving\n"
        service.send_signal(signal.SIGTERM)
        service.stdin.write("go on\n")
        service.stdin.flush()
        assert service.wait(10) == 0
