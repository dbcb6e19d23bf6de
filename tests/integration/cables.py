"""Machines on a switch, whose cables a test pulls: network namespaces, which the kernel keeps apart as it does computers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest

SUBNET: Final = "10.213.78"
_SWITCH: Final = "switch"


def on(machine: str, *command: str) -> list[str]:
    """What runs `command` in the namespace `machine`."""
    return ["ip", "netns", "exec", machine, *command]


def ip(*arguments: str) -> None:
    """The command has succeeded. Raises: CalledProcessError."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Network:
    """Machines that see each other, and nothing else, over a switch."""

    def __init__(self, machines: Sequence[str]) -> None:
        """Nothing is made yet; there may be up to 200 machines."""
        self._machines = {name: f"{SUBNET}.{number}" for number, name in enumerate(machines, 1)}

    def address(self, machine: str) -> str:
        """The machine's IPv4 address."""
        return self._machines[machine]

    def start(self, machine: str, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """`command` runs on `machine`; `options` are those of `subprocess.Popen`."""
        return subprocess.Popen(on(self._namespace(machine), *command), **options)

    def pull(self, machine: str) -> None:
        """The machine's cable is out: it has no link, keeps its address, and reaches itself alone."""
        ip("-n", self._namespace(_SWITCH), "link", "set", machine, "down")

    def plug(self, machine: str) -> None:
        """The cable is in again. Idempotent."""
        ip("-n", self._namespace(_SWITCH), "link", "set", machine, "up")

    @contextlib.contextmanager
    def dropping(self, machine: str, other: str, *, to: bool = True, back: bool = True) -> Iterator[None]:
        """What `machine` sends to `other` is lost, without a word, and what it is sent from there; or only one of them."""
        rules = {("OUTPUT", "-d"): to, ("INPUT", "-s"): back}
        made = []
        try:
            for chain, end in (rule for rule, drops in rules.items() if drops):
                rule = (chain, end, self.address(other), "-j", "DROP")
                self._tables(machine, "-A", *rule)
                made.append(rule)
            yield
        finally:
            for rule in made:
                self._tables(machine, "-D", *rule)

    def _tables(self, machine: str, *arguments: str) -> None:
        command = on(self._namespace(machine), "iptables", "-w", *arguments)
        subprocess.run(command, check=True, capture_output=True, text=True)

    def _namespace(self, name: str) -> str:
        return f"narupa-{os.getpid()}-{name}"

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        """The machines and their cables are there while this is open; the test is skipped where they cannot be made."""
        for command, package in (("ip", "iproute2"), ("iptables", "iptables")):
            if shutil.which(command) is None:
                pytest.skip(f"needs the command {command}, of {package}")
        with contextlib.ExitStack() as stack:
            try:
                for name in (_SWITCH, *self._machines):
                    ip("netns", "add", self._namespace(name))
                    stack.callback(ip, "netns", "delete", self._namespace(name))
                switch = self._namespace(_SWITCH)
                ip("-n", switch, "link", "add", _SWITCH, "type", "bridge")
                ip("-n", switch, "link", "set", _SWITCH, "up")
                for name, address in self._machines.items():
                    machine = self._namespace(name)
                    ip("-n", machine, "link", "add", "cable", "type", "veth", "peer", "name", name, "netns", switch)
                    ip("-n", machine, "address", "add", f"{address}/24", "dev", "cable")
                    for link in ("lo", "cable"):
                        ip("-n", machine, "link", "set", link, "up")
                    ip("-n", switch, "link", "set", name, "master", _SWITCH, "up")
                    self._tables(name, "-L")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"needs network namespaces with iptables: {error.stderr.strip()}")
            yield
