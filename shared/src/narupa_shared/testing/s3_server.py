"""An object store for tests that speaks S3: a process of its own on a random port, which keeps nothing beyond its end."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Final, Self
from uuid import uuid4

from narupa_shared.testing.ports import unused_port

_START_S: Final = 60.0


class S3Server:
    """`with S3Server(folder) as server:` runs it, with its log in `folder`; within, it may be killed.

    Attributes:
        environment: What a process needs to be told to find it, and to be let in.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing runs yet."""
        self._port = unused_port()
        self._log = folder / "s3.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "a-key-of-tests",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"the S3 server does not start; its log ends with: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """It has died of SIGKILL. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def bucket(self) -> str:
        """The name of a new one."""
        name = f"b{uuid4().hex}"
        # Anybody may make one: this server does not look at signatures.
        request = urllib.request.Request(f"{self.environment['AWS_ENDPOINT_URL']}/{name}", method="PUT")
        with urllib.request.urlopen(request, timeout=_START_S):
            return name

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.environment['AWS_ENDPOINT_URL']}/moto-api/data.json", timeout=5):
                return True
        except OSError:
            return False
