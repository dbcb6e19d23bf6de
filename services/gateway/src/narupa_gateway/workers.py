"""One gateway in several processes: they listen on the same ports, and the system gives each connection to one of them.

The first process holds the ports and looks after the others, the workers, each of which is a whole gateway. A worker reads its
standard input, which says that the first process is gone (`worker.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import structlog

from narupa_gateway.config import GatewayConfig
from narupa_shared.daemon import APP_STOP_LIMIT_S, StartError
from narupa_shared.logs import configure_logs

log = structlog.get_logger(__name__)

# A daemon's way to say that a setting is wrong: starting it again would end the same.
BAD_INPUT_STATUS: Final = 2
# How long a worker waits before it is started again after so many failures in a row; the last one for all that follow, s.
BACK_OFF_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0)
# A worker that ran for longer has not failed at its start, s.
SETTLED_S: Final = 10.0
# When every worker has failed so often in a row, what is wrong concerns all, and stays.
HOPELESS: Final = 3

# The command line of a worker, by its number from 1.
Command = Callable[[int], Sequence[str]]


def stop_limit_s(config: GatewayConfig) -> float:
    """How long a worker may take to end in order before it is killed, s."""
    return config.drain_grace_s + APP_STOP_LIMIT_S + 1.0


@contextlib.contextmanager
def held_ports(config: GatewayConfig) -> Iterator[dict[str, int]]:
    """The ports that the workers share, by the names of their settings; nobody else gets them while this is open.

    A socket that does not listen takes no connections from those that do.

    Raises:
        StartError: a port is in use, or the address is not this machine's.
    """
    wanted = {"port": config.port, "websocket_port": config.websocket_port}
    if config.imd_port is not None:
        wanted["imd_port"] = config.imd_port
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(_held(config.host.strip("[]"), port, name)).getsockname()[1]
            for name, port in wanted.items()
        }


def _held(host: str, port: int, name: str) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        if port:
            # Whoever listens there, and would share the port as the workers do, is found out by not offering to share it.
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        held = socket.socket(family, kind, protocol)
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(address)
        except BaseException:
            held.close()
            raise
    except OSError as error:
        flag = name.replace("_", "-")
        raise StartError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; stop what uses it, or choose another with --{flag} "
            f"(NARUPA_GATEWAY_{name.upper()})"
        ) from error
    return held


class Worker:
    """One of the processes: started again, with back-off, whenever it fails.

    Attributes:
        failures: How often in a row it has ended by a failure soon after its start.
    """

    def __init__(self, number: int, command: Sequence[str], stop_limit_s: float) -> None:
        """Nothing runs. `stop_limit_s` is how long it may take to end once it is asked to, s."""
        self._number = number
        self._command = command
        self._stop_limit_s = stop_limit_s
        self._process: asyncio.subprocess.Process | None = None
        self.failures = 0

    async def run(self, stop: asyncio.Event, failed: Callable[[], object]) -> int:
        """Runs it until `stop` is set, or it ends for good; returns its last status, 0 when it was asked to end.

        `failed` is called at each failure, before it is started again.
        """
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            started = loop.time()
            status = await self._once(stop)
            if stop.is_set():
                return 0
            if status in (0, BAD_INPUT_STATUS):  # 0: the lobby has asked it to go
                log.info("worker_left", worker=self._number, status=status)
                return status
            self.failures = 1 if loop.time() - started > SETTLED_S else self.failures + 1
            delay_s = BACK_OFF_S[min(self.failures, len(BACK_OFF_S)) - 1]
            log.warning("worker_died", worker=self._number, status=status, again_in_s=delay_s)
            failed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await stop.wait()
        return 0

    def ask_to_end(self) -> None:
        """It has been sent SIGTERM, if it runs."""
        self._send(signal.SIGTERM)

    async def _once(self, stop: asyncio.Event) -> int:
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,  # ends when this process does
            process_group=0,  # Ctrl-C reaches the first process alone
        )
        log.info("worker_started", worker=self._number, pid=process.pid)
        waiting = {asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if process.returncode is None:
                self.ask_to_end()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._stop_limit_s):
                        await process.wait()
        finally:
            if process.returncode is None:
                log.warning("worker_does_not_end", worker=self._number, pid=process.pid)
                self._send(signal.SIGKILL)
            status = await process.wait()
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert process.stdin is not None
            process.stdin.close()
        return status

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                # Not process.send_signal(): it may collect an ended process itself, and lose its status.
                os.kill(self._process.pid, number)


async def supervised(command: Command, processes: int, limit_s: float, stop: asyncio.Event) -> int:
    """Runs so many workers until `stop` is set, or none is left; then none is.

    Returns 0 when they were asked to end, 2 when a setting is wrong, and 1 when every one of them keeps failing. A signal, of
    which the second is passed on as well, asks for the end.
    """
    workers = [Worker(number, command(number), limit_s) for number in range(1, processes + 1)]
    hopeless = asyncio.Event()

    def end() -> None:
        if stop.is_set():
            for worker in workers:
                worker.ask_to_end()
        stop.set()

    def look() -> None:
        if all(worker.failures >= HOPELESS for worker in workers):
            hopeless.set()
            stop.set()

    async def run(worker: Worker) -> int:
        status = await worker.run(stop, look)
        if status:
            stop.set()
        return status

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(run(worker), name=f"worker {index}") for index, worker in enumerate(workers, 1)
            ]
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    if hopeless.is_set():
        log.error("workers_keep_failing", processes=processes)
        return 1
    return max(task.result() for task in running)


def run_workers(config: GatewayConfig, argv: Sequence[str]) -> int:
    """Runs the gateway in `config.processes` workers, until SIGINT, SIGTERM or their own end; returns the exit status.

    0: stopped as asked. 1: could not start, or failed. 2: a setting is wrong.

    Args:
        config: What `argv`, the environment and a file say together.
        argv: Flags, which each worker is given as well.
    """
    configure_logs("gateway", config.session_id, config.log_level, config.log_format)

    async def supervise(ports: dict[str, int]) -> int:
        def command(number: int) -> Sequence[str]:
            return (sys.executable, "-m", "narupa_gateway.worker", str(number), json.dumps(ports), *argv)

        return await supervised(command, config.processes, stop_limit_s(config), asyncio.Event())

    try:
        with held_ports(config) as ports:
            status = asyncio.run(supervise(ports))
            for number in (signal.SIGINT, signal.SIGTERM):
                # All have ended in good order; a signal that comes while Python leaves would make another ending of it.
                signal.signal(number, signal.SIG_IGN)
            return status
    except StartError as error:
        print(f"narupa-gateway: {error}", file=sys.stderr)
        return 1
