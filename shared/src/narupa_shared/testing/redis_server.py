"""A real Redis for tests: a process of its own on a random port, durable as the store wants it, that dies when told to."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Final, Self

from narupa_shared.testing.ports import unused_port

_START_S: Final = 10.0
_ATTEMPTS: Final = 5


class RedisServer:
    """`with RedisServer(folder) as server:` runs it with its data in `folder`; within, it may be killed and started again.

    Attributes:
        port: Chosen by the first start, and kept.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        """`options` are those of redis-server, such as "--requirepass", "secret"."""
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError(
                "redis-server is not installed, and these tests need a real one: apt-get install redis-server (Debian, Ubuntu)"
            )
        self.port = 0
        self._folder = folder
        self._command = [program, "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--daemonize", "no"]
        self._command += ["--appendonly", "yes", "--appendfsync", "always", *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """It runs and answers. After `kill` it has the same port and data."""
        for _ in range(_ATTEMPTS):
            port = self.port or unused_port()
            log = self._folder / "redis.log"
            command = [*self._command, "--port", str(port), "--logfile", str(log)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            if self._answers(port):
                self.port = port
                return
            self.kill()
        text = log.read_text() if log.exists() else ""
        raise RuntimeError(f"redis-server does not start; its log ends with: {text[-2000:]}")

    def kill(self) -> None:
        """It has died of SIGKILL, and its connections with it. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It keeps its connections and answers nobody, like a machine behind a broken network."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("redis-server is not running")
        os.kill(self._process.pid, number)

    def _answers(self, port: int) -> bool:
        """Whether it serves commands (an error such as a missing password is an answer) before it gives up."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                        return True
            except OSError:
                pass
            time.sleep(0.01)
        return False
