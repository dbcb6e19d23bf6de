"""`narupa session`: a whole session in the foreground of this terminal."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

import grpc_health.v1.health_pb2 as health
import typer
from rich.panel import Panel

from narupa_client.cli.options import (
    BAD_INPUT,
    FAILED,
    checked_address,
    fail,
    messages,
    run,
)
from narupa_client.cli.supervisor import Child, Program, ServiceEndedError
from narupa_client.cli.target import JoinCodeOption, LobbyOption, OperatorKeyOption, target
from narupa_client.connection import Connection, Endpoint
from narupa_client.lobby import list_services
from narupa_client.session import DEFAULT_LOBBY
from narupa_client.tasks import ended
from narupa_shared.errors import NarupaError
from narupa_shared.freed_memory import given_back
from narupa_shared.tls import TlsConfig

SERVICES: Final = ("lobby", "imd", "trajectory", "gateway")
# What the gateway tells of its other doors: for whom, under which name, and how its address begins.
_DOORS: Final = (
    ("browser", "ws", "http://"),
    ("browser", "wss", "https://"),
    ("NanoVer", "ws", "ws://"),
    ("NanoVer", "wss", "wss://"),
    ("IMD", "imd", ""),
)
_STOP_GRACE_S: Final = 4.0
_LOBBY_STOP_GRACE_S: Final = 6.0  # it stops the simulations that it has started
_ASK_EVERY_S: Final = 0.2
_ASK_CLOSED_EVERY_S: Final = 1.0
_SAY_EVERY_S: Final = 10.0
_TLS_FILES: Final = {"CERT": "server.pem", "KEY": "server-key.pem", "CA": "ca.pem"}
_UP: Final = ("running", "unhealthy")


@dataclass(frozen=True, slots=True)
class Plan:
    """Where everything listens, and what it is told.

    Attributes:
        lobby: Where the lobby listens.
        host: Where the other services listen.
        reach: Where this machine, and the services, find the lobby.
        join_code: What users must say; None on loopback, where a session is open.
        operator_key: What lets one do everything; None on loopback, where everybody may.
        tls: How to call the services; None without TLS.
    """

    lobby: Endpoint
    host: str
    reach: Endpoint
    join_code: str | None
    programs: tuple[Program, ...]
    tls: TlsConfig | None = None
    operator_key: str | None = None


def session(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[INPUT]...", help="What to run; without any, the demos.")
    ] = None,
    lobby: LobbyOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Where the services listen; as the lobby.")] = None,
    trajectory_port: Annotated[
        int, typer.Option("--trajectory-port", min=0, max=65535, help="0 takes any free one.")
    ] = 38811,
    imd_port: Annotated[int, typer.Option("--imd-port", min=0, max=65535, help="0 takes any free one.")] = 38812,
    gateway_port: Annotated[
        int,
        typer.Option(
            "--gateway-port", min=0, max=65535, help="For Narupa and NanoVer gRPC clients; 0 takes any free one."
        ),
    ] = 38802,
    websocket_port: Annotated[
        int, typer.Option("--websocket-port", min=0, max=65535, help="For NanoVer clients; 0 takes any free one.")
    ] = 38801,
    imd_server_port: Annotated[
        int | None,
        typer.Option(
            "--imd-server-port",
            min=0,
            max=65535,
            help="For programs that read IMD, usually 8888; 0 takes any free one. Unset serves none.",
        ),
    ] = None,
    imd_version: Annotated[
        int, typer.Option("--imd-version", min=2, max=3, help="Of IMD that is spoken there; VMD wants 2.")
    ] = 3,
    gateway_processes: Annotated[
        int | None,
        typer.Option(
            "--gateway-processes",
            min=1,
            max=64,
            help="That share the gateway's ports, for more viewers than one core can serve; 1 unless told otherwise.",
        ),
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Wait for a play command.")] = False,
    fps: Annotated[
        float | None, typer.Option("--fps", min=0.0, help="Frames per second; 0 runs as fast as the engine can.")
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option("--state-dir", file_okay=False, help="Keeps users, keys and shared state after the session."),
    ] = None,
    certs: Annotated[
        Path | None,
        typer.Option("--certs", metavar="DIR", help="Speak TLS, with the files that `narupa certs` has made there."),
    ] = None,
    catalogue: Annotated[
        Path | None,
        typer.Option(
            "--catalogue",
            metavar="DIR",
            file_okay=False,
            exists=True,
            help="Simulations that may be started on demand.",
        ),
    ] = None,
    log_format: Annotated[str, typer.Option("--log-format", metavar="console|json")] = "console",
    join_code: JoinCodeOption = None,
    operator_key: OperatorKeyOption = None,
) -> None:
    """Run a session here: lobby, imd, trajectory and gateway. Ctrl-C ends it."""
    if log_format not in ("console", "json"):
        fail(f"--log-format is {log_format!r}: use console or json", BAD_INPUT)
    _check_installed()
    at = target(context, lobby=lobby, join_code=join_code, operator_key=operator_key)
    address, reach = _addresses(at.lobby)
    # A service that fails and is started again goes on where it was, also where nothing is kept after the session.
    with tempfile.TemporaryDirectory(prefix="narupa-session-") as passing:
        plan = planned(
            inputs or [],
            lobby=address,
            reach=reach,
            host=host or address.host,
            ports={"trajectory": trajectory_port, "imd": imd_port, "gateway": gateway_port},
            gateway_flags=_gateway_flags(websocket_port, imd_server_port, imd_version, gateway_processes),
            join_code=at.join_code,
            state_dir=state_dir or Path(passing),
            log_format="json" if log_format == "json" else "console",
            trajectory_flags=_trajectory_flags(paused, fps),
            certs=certs,
            operator_key=at.operator_key,
            catalogue=catalogue,
        )
        for name, endpoint in (
            ("lobby", plan.lobby),
            ("trajectory", Endpoint(plan.host, trajectory_port)),
            ("imd", Endpoint(plan.host, imd_port)),
            ("gateway", Endpoint(plan.host, gateway_port)),
            ("websocket", Endpoint(plan.host, websocket_port)),
            ("imd-server", Endpoint(plan.host, imd_server_port or 0)),
        ):
            _check_free(name, endpoint)
        run(Supervision(plan).run(), interrupted=0)


def planned(
    inputs: Sequence[str],
    *,
    lobby: Endpoint,
    reach: Endpoint,
    host: str,
    ports: dict[str, int],
    join_code: str | None,
    state_dir: Path,
    log_format: Literal["console", "json"],
    trajectory_flags: Sequence[str],
    certs: Path | None = None,
    operator_key: str | None = None,
    catalogue: Path | None = None,
    gateway_flags: Sequence[str] = (),
) -> Plan:
    """What to start for these options."""
    files = {} if certs is None else _tls_files(certs.absolute())
    closed = not (_loopback(lobby.host) and _loopback(host))
    if closed and join_code is None:
        join_code = secrets.token_urlsafe(6)
    if closed and operator_key is None:
        operator_key = secrets.token_urlsafe(18)
    # Secrets travel in the environment, where other users of the machine do not see them.
    key = secrets.token_urlsafe(24)
    programs = []
    for name in SERVICES:
        prefix = f"NARUPA_{name.upper()}_"
        environment = {f"{prefix}SERVICE_KEY": os.environ.get(f"{prefix}SERVICE_KEY", key)} if closed else {}
        environment |= {f"{prefix}{setting}": str(path) for setting, path in files.items()}
        flags = ["--host", host, "--log-format", log_format]
        if name == "lobby":
            flags = ["--host", lobby.host, "--port", str(lobby.port), "--log-format", log_format]
            if join_code is not None:
                environment[f"{prefix}JOIN_CODE"] = join_code
            if operator_key is not None:
                environment[f"{prefix}OPERATOR_KEY"] = operator_key
            if catalogue is not None:
                environment[f"{prefix}CATALOGUE"] = str(catalogue.absolute())
        else:
            flags += ["--port", str(ports[name]), "--lobby", str(reach)]
        if name in ("lobby", "imd"):
            flags += ["--state-dir", str(state_dir)]
        if name == "gateway":
            flags += gateway_flags
        if name == "trajectory":
            flags += trajectory_flags
            if inputs:
                environment[f"{prefix}SOURCES"] = json.dumps(list(inputs))
        programs.append(Program(name, (sys.executable, "-m", f"narupa_{name}", *flags), environment))
    tls = TlsConfig(files["TLS_CA"]) if files else None
    return Plan(
        lobby, host, reach, join_code if closed else None, tuple(programs), tls, operator_key if closed else None
    )


def _gateway_flags(
    websocket_port: int, imd_server_port: int | None, imd_version: int, processes: int | None
) -> list[str]:
    flags = ["--websocket-port", str(websocket_port)]
    if imd_server_port is not None:
        flags += ["--imd-port", str(imd_server_port), "--imd-version", str(imd_version)]
    if processes is not None:
        flags += ["--processes", str(processes)]
    return flags


def _tls_files(folder: Path) -> dict[str, Path]:
    """The settings of a service that name files in `folder`, which have to be good."""
    files = {f"TLS_{name}": folder / file for name, file in _TLS_FILES.items()}
    try:
        TlsConfig(files["TLS_CA"], files["TLS_CERT"], files["TLS_KEY"]).check()
    except NarupaError as error:
        fail(f"--certs: {error}; `narupa certs {folder} --host NAME_OR_IP` makes or renews the files", BAD_INPUT)
    return files


class Supervision:
    """The services, from their start to their end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._held_back: list[str] | None = []
        self._problem = ""
        self._doors: list[tuple[str, str]] = []
        self._children = {program.name: Child(program, self._say, self._relay) for program in plan.programs}

    async def run(self) -> int:
        """Runs everything until cancelled; returns the command's exit status when a service ends for good."""
        tasks = [asyncio.create_task(child.run(), name=f"narupa-{name}") for name, child in self._children.items()]
        greeting = asyncio.create_task(self._greet(), name="narupa-greeting")
        try:
            waiting = {*tasks, greeting}
            async with given_back():
                while waiting:
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
        except ServiceEndedError as error:
            messages.print(f"[bold red]error:[/] {str(error).replace('[', chr(92) + '[')}")
            return error.status
        finally:
            for task in (*tasks, greeting):
                await ended(task)
            await self._stop()
        return FAILED

    async def _stop(self) -> None:
        """The others first, so that they can take their leave of the lobby."""
        others = [child.stop(_STOP_GRACE_S) for name, child in self._children.items() if name != "lobby"]
        await asyncio.gather(*others, return_exceptions=True)
        await self._children["lobby"].stop(_LOBBY_STOP_GRACE_S)

    async def _greet(self) -> None:
        """Waits until everything works, and says how to take part; from then on logs are shown."""
        messages.print(f"starting {', '.join(SERVICES)} ...")
        loop = asyncio.get_running_loop()
        said = loop.time()
        while missing := await self._missing():
            if loop.time() - said > _SAY_EVERY_S:
                said = loop.time()
                why = f" ({self._problem})" if self._problem else ""
                messages.print(f"still waiting for {', '.join(missing)}{why} ...", markup=False)
            # A closed lobby has to be joined to be asked.
            await asyncio.sleep(_ASK_CLOSED_EVERY_S if self._plan.join_code else _ASK_EVERY_S)
        panel = Panel(self._welcome(), title="Narupa session", title_align="left", expand=False)
        messages.print(panel, soft_wrap=False)
        held_back, self._held_back = self._held_back or [], None
        for line in held_back:
            self._relay(line)

    async def _missing(self) -> list[str]:
        try:
            if not await _serving(self._plan.reach, self._plan.tls):
                return list(SERVICES)
            self._children["lobby"].healthy = True
            found = await list_services(
                self._plan.reach, join_code=self._plan.join_code or "", name="narupa session", tls=self._plan.tls
            )
        except NarupaError as error:
            self._problem = str(error)
            return list(SERVICES)
        self._problem = ""
        self._addresses = {service.kind: service.endpoints for service in found}
        doors = (
            (label, f"{scheme}{service.endpoints[0].host}:{port}")
            for service in found
            if service.kind == "gateway" and service.endpoints
            for label, fact, scheme in _DOORS
            if (port := service.metadata.get(fact))
        )
        self._doors = list(dict.fromkeys(doors))  # the processes of a gateway share theirs
        up = {service.kind for service in found if service.status in _UP}
        for name in up & self._children.keys():
            self._children[name].healthy = True
        return [name for name in SERVICES if name != "lobby" and name not in up]

    def _welcome(self) -> str:
        rows = [("lobby", (self._plan.reach,)), *sorted(self._addresses.items())]
        lines = [f"{kind:<12}{', '.join(map(str, endpoints))}" for kind, endpoints in rows]
        lines += [f"{label:<12}{address}" for label, address in self._doors]
        lines += ["", "In another terminal:"]
        if str(self._plan.reach) != DEFAULT_LOBBY:
            lines.append(f"  export NARUPA_LOBBY={self._plan.reach}")
        if self._plan.join_code:
            lines.append(f"  export NARUPA_JOIN_CODE={self._plan.join_code}")
        tls = ""
        if self._plan.tls:
            tls = f", tls=narupa_client.TlsConfig({str(self._plan.tls.ca)!r})"
            lines.append(f"  export NARUPA_TLS_CA={self._plan.tls.ca}")
        if self._plan.operator_key:
            lines.append(
                f"  export NARUPA_OPERATOR_KEY={self._plan.operator_key}   (for you alone: lets one do everything)"
            )
        lines += [
            "  narupa watch",
            "  narupa pull --particles 0 --to 0,0,0.5 --relative",
            f"In Python: narupa_client.connect({str(self._plan.reach)!r}{tls})",
            "",
            "Ctrl-C ends the session.",
        ]
        return "\n".join(lines).replace("[", "\\[")

    def _say(self, text: str) -> None:
        messages.print(f"[yellow]{text.replace('[', chr(92) + '[')}[/]")

    def _relay(self, line: str) -> None:
        if self._held_back is not None:
            self._held_back.append(line)
        else:
            print(line, file=sys.stderr, flush=True)


async def _serving(lobby: Endpoint, tls: TlsConfig | None) -> bool:
    place = replace(lobby, tls=tls is not None)
    connection = Connection("lobby", lambda: (place,), lambda: None, tls=tls)
    try:
        reply = await connection.call(
            "/grpc.health.v1.Health/Check", health.HealthCheckRequest(), health.HealthCheckResponse, timeout_s=2.0
        )
    finally:
        connection.close()
    return bool(reply.status == health.HealthCheckResponse.SERVING)


def _check_installed() -> None:
    missing = [name for name in SERVICES if importlib.util.find_spec(f"narupa_{name}") is None]
    if missing:
        packages = " ".join(f"narupa-{name}" for name in missing)
        fail(f"these services are not installed beside this command: {packages}; install them, or run `make setup`")


def _addresses(text: str) -> tuple[Endpoint, Endpoint]:
    """Where the lobby listens, with a real port; and where it is found, which differs where it listens everywhere."""
    host, _, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if port == "0" and host:
        listening = Endpoint(host, _free_port(host))
    else:
        listening = checked_address(text)
    reach = _outward_address() if listening.host in ("0.0.0.0", "::") else listening.host
    return listening, Endpoint(reach, listening.port)


def _trajectory_flags(paused: bool, fps: float | None) -> list[str]:
    flags = ["--paused"] if paused else []
    if fps is not None:
        flags += ["--frame-interval-s", repr(1.0 / fps if fps > 0 else 0.0)]
    return flags


def _loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _check_free(name: str, endpoint: Endpoint) -> None:
    if endpoint.port == 0:
        return
    try:
        with closing(socket.socket(_family(endpoint.host), socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((endpoint.host, endpoint.port))
    except OSError as error:
        flag = "--lobby HOST:PORT" if name == "lobby" else f"--{name}-port"
        reason = (error.strerror or str(error)).lower()
        fail(f"{name} cannot listen on {endpoint}: {reason}; stop what uses it, or choose another with {flag}")


def _free_port(host: str) -> int:
    try:
        with closing(socket.socket(_family(host), socket.SOCK_STREAM)) as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])
    except OSError as error:
        fail(
            f"lobby cannot listen on {host}: {(error.strerror or str(error)).lower()}; choose another --lobby HOST:PORT"
        )


def _outward_address() -> str:
    """This machine's address towards others; that of the loopback where it has no other."""
    try:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
            probe.connect(("192.0.2.1", 9))  # a datagram socket: nothing is sent, only the route is looked up
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"
