"""Sessions over TLS: real services with certificates, real clients, and everybody who has the wrong ones."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from ase.build import molecule
from ase.io import write
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

import narupa_client
from narupa_client import TlsConfig
from narupa_imd.app import ImdApp
from narupa_imd.config import ImdConfig
from narupa_lobby.app import LobbyApp
from narupa_lobby.config import LobbyConfig
from narupa_shared.certificates import Authority, Issued
from narupa_shared.daemon import Bound, serving
from narupa_shared.errors import InvalidArgumentError, UnavailableError
from narupa_trajectory.imd_link import TLS_SCHEME, ImdLink

NOW = datetime.datetime.now(datetime.UTC)
LIMIT_S = 60.0


class Folder:
    """What two authorities have given out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.authority, other = Authority.new(NOW), Authority.new(NOW)
        self.ca, _ = self.keep("ca", self.authority.issued)
        self.other_ca, _ = self.keep("other-ca", other.issued)
        self.server = self.keep("server", self.authority.server(["localhost", "127.0.0.1"], NOW, 90))
        self.client = self.keep("client", self.authority.client("client", NOW, 90))
        self.stranger = self.keep("stranger", other.client("client", NOW, 90))

    def keep(self, name: str, issued: Issued) -> tuple[Path, Path]:
        cert, key = self.path / f"{name}.pem", self.path / f"{name}-key.pem"
        cert.write_bytes(issued.certificate)
        key.write_bytes(issued.key)
        return cert, key

    @property
    def listening(self) -> dict[str, Any]:
        """Settings of a service that listens with TLS."""
        return {"tls_cert": self.server[0], "tls_key": self.server[1], "tls_ca": self.ca}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
async def threads_of_name_look_ups_end() -> AsyncIterator[None]:
    yield
    await asyncio.get_running_loop().shutdown_default_executor()


@contextlib.asynccontextmanager
async def lobby(**settings: Any) -> AsyncIterator[Bound]:
    config = LobbyConfig(port=0, store="memory", drain_grace_s=0.1, **settings)
    async with serving("lobby", config, LobbyApp(config)) as bound:
        yield bound


async def joining(address: str, tls: TlsConfig | None) -> str:
    """Why one cannot join; empty when one can."""
    try:
        async with narupa_client.join(address, "Ada", tls=tls, wait_s=0) as session:
            assert [user.name for user in session.users] == ["Ada"]
            return ""
    except UnavailableError as error:
        return str(error)


async def test_a_client_joins_by_any_name_that_the_certificate_has(folder: Folder) -> None:
    async with lobby(**folder.listening) as bound:
        for host in ("127.0.0.1", "localhost"):
            assert await joining(f"{host}:{bound.port}", TlsConfig(folder.ca)) == ""


async def test_a_name_that_the_certificate_lacks_is_refused(folder: Folder) -> None:
    cert, key = folder.keep("elsewhere", folder.authority.server(["lab.example.org"], NOW, 90))
    async with lobby(tls_cert=cert, tls_key=key) as bound:
        assert "for other addresses than this one" in await joining(bound.address, TlsConfig(folder.ca))
        assert "for other names than this one" in await joining(f"localhost:{bound.port}", TlsConfig(folder.ca))


async def test_another_authority_is_not_trusted_and_neither_is_the_systems(folder: Folder) -> None:
    async with lobby(**folder.listening) as bound:
        for tls in (TlsConfig(folder.other_ca), TlsConfig()):
            why = await joining(bound.address, tls)
            assert "its certificate is not of an authority that is trusted here" in why and "tls_ca" in why


async def test_tls_on_one_side_only_is_told_on_both(folder: Folder) -> None:
    async with lobby(**folder.listening) as bound:
        assert "it expects TLS" in await joining(bound.address, None)
    async with lobby() as bound:
        assert "it does not speak TLS" in await joining(bound.address, TlsConfig(folder.ca))


async def test_with_mutual_tls_only_clients_of_the_authority_come_in(folder: Folder) -> None:
    async with lobby(**folder.listening, tls_client_ca=folder.ca) as bound:
        assert await joining(bound.address, TlsConfig(folder.ca, *folder.client)) == ""
        assert "it asks for a client certificate" in await joining(bound.address, TlsConfig(folder.ca))
        assert "does not accept our certificate" in await joining(bound.address, TlsConfig(folder.ca, *folder.stranger))
        assert "it expects TLS" in await joining(bound.address, None)


async def test_an_expired_client_certificate_never_leaves_and_never_enters(folder: Folder) -> None:
    long_ago = NOW - datetime.timedelta(days=100)
    expired = folder.keep("expired", folder.authority.client("client", long_ago, 30))
    with pytest.raises(InvalidArgumentError, match=r"expired\.pem'?: the certificate expired at"):
        await joining("127.0.0.1:1", TlsConfig(folder.ca, *expired))

    class Careless(TlsConfig):
        def check(self) -> None:
            pass

    async with lobby(**folder.listening, tls_client_ca=folder.ca) as bound:
        assert "does not accept our certificate" in await joining(bound.address, Careless(folder.ca, *expired))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_an_old_protocol_is_refused(folder: Folder) -> None:
    context = TlsConfig(folder.ca).context()
    context.minimum_version = context.minimum_version.__class__.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.maximum_version = context.maximum_version.__class__.TLSv1_1
    async with lobby(**folder.listening) as bound:
        with pytest.raises(OSError):
            await asyncio.open_connection(bound.host, bound.port, ssl=context)


async def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    async with (
        lobby(**folder.listening) as bound,
        narupa_client.join(bound.address, "Bob", tls=TlsConfig(folder.ca)) as session,
    ):
        fresh = Authority.new(NOW)
        folder.keep("ca", fresh.issued)
        folder.keep("server", fresh.server(["127.0.0.1", "localhost"], NOW, 90))
        async with narupa_client.join(bound.address, "Ada", tls=TlsConfig(folder.ca)) as second:
            assert second.user_id
        assert session.user_id in {user.id for user in await session.lobby.users()}, "who was there before stays"


async def test_files_that_are_wrong_stop_the_start(folder: Folder) -> None:
    for settings, why in (
        ({**folder.listening, "tls_key": folder.client[1]}, "tls_key is .* not the key of the first certificate"),
        ({**folder.listening, "tls_ca": folder.path / "no.pem"}, "tls_ca is .*cannot be read"),
        ({**folder.listening, "tls_client_ca": folder.path / "no.pem"}, "tls_client_ca is .*cannot be read"),
    ):
        with pytest.raises(InvalidArgumentError, match=why):
            async with lobby(**settings):
                pass


async def test_an_existing_client_over_tls_needs_nothing_of_ours(folder: Folder) -> None:
    async with lobby(**folder.listening) as bound:
        credentials = grpc.ssl_channel_credentials(folder.ca.read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{bound.port}", credentials) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            reply = await stub.Check(health_pb2.HealthCheckRequest())
            assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def logged(reader: asyncio.StreamReader, event: str) -> dict[str, Any]:
    """The next log entry of this event."""
    seen = []
    async with asyncio.timeout(LIMIT_S):
        while line := await reader.readline():
            seen.append(line)
            with contextlib.suppress(json.JSONDecodeError):
                if (entry := json.loads(line)).get("event") == event:
                    return dict(entry)
    raise AssertionError(f"the service ended without {event}: {b''.join(seen).decode()}")


@contextlib.asynccontextmanager
async def process(service: str, *flags: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [sys.executable, "-m", f"narupa_{service}", "--log-format", "json", "--port", "0", *flags]
    running = await asyncio.create_subprocess_exec(*command, stderr=PIPE, env={**os.environ, **environment})
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LIMIT_S):
            await running.communicate()


async def health(target: str, **environment: str) -> tuple[int, str]:
    """The exit status of the container health check, and what it says."""
    command = [sys.executable, "-m", "narupa_shared.healthcheck", target]
    checking = await asyncio.create_subprocess_exec(*command, stderr=PIPE, env={**os.environ, **environment})
    _, said = await checking.communicate()
    assert checking.returncode is not None
    return checking.returncode, said.decode()


async def test_a_whole_session_over_mutual_tls(folder: Folder, tmp_path: Path) -> None:
    """Lobby, imd and trajectory as processes; each calls the others; a client sees frames and pulls."""
    write(tmp_path / "ethanol.xyz", molecule("CH3CH2OH"))
    files = {**folder.listening, "tls_client_ca": folder.ca}
    flags = [text for name, path in files.items() for text in (f"--{name.replace('_', '-')}", str(path))]
    tls = TlsConfig(folder.ca, *folder.client)
    async with process("lobby", "--store", "memory", *flags) as first:
        assert first.stderr
        ready = await logged(first.stderr, "service_ready")
        address = str(ready["address"])
        assert ready["tls"] is True
        own = {
            "NARUPA_LOBBY_PORT": address.rpartition(":")[2],
            "NARUPA_LOBBY_TLS_CERT": str(folder.server[0]),
            "NARUPA_LOBBY_TLS_KEY": str(folder.server[1]),
        }
        assert await health("lobby", **own) == (0, "")
        assert (await health(address, NARUPA_TLS_CA=str(folder.ca)))[0] == 1, "no client certificate"
        source = f"{tmp_path / 'ethanol.xyz'}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01"
        async with (
            process("imd", "--lobby", address, "--store", "memory", *flags) as imd,
            process(
                "trajectory", "--lobby", address, *flags, NARUPA_TRAJECTORY_SOURCES=json.dumps([source])
            ) as running,
        ):
            assert imd.stderr and running.stderr
            await logged(imd.stderr, "registered")
            found = await logged(running.stderr, "imd_found")
            assert str(found["address"]).startswith("grpcs://")
            async with asyncio.timeout(LIMIT_S), narupa_client.join(address, "Ada", tls=tls, wait_s=10) as session:
                frames = session.frames()
                frame = await anext(frames)
                assert frame.positions.shape == (9, 3)
                assert all(endpoint.tls for service in session.services for endpoint in service.endpoints)
                async with session.pull([0], to=(0.0, 0.0, 2.0), kind="spring", scale=100):
                    while not (await anext(frames)).user_energy:
                        pass
                await frames.aclose()


async def test_a_service_says_why_it_cannot_reach_its_lobby(folder: Folder) -> None:
    async with lobby(**folder.listening) as bound:
        for flags, why in (
            (["--tls-ca", str(folder.other_ca)], "its certificate is not of an authority that is trusted here"),
            ([], "it expects TLS"),
        ):
            async with process("imd", "--lobby", bound.address, "--store", "memory", *flags) as imd:
                assert imd.stderr
                assert why in str((await logged(imd.stderr, "lobby_not_reached"))["reason"])


async def test_a_service_that_cannot_start_says_which_setting_is_wrong(folder: Folder) -> None:
    flags = ["--tls-cert", str(folder.server[0]), "--tls-key", str(folder.client[1])]
    async with process("imd", "--store", "memory", *flags) as imd:
        _, said = await imd.communicate()
        assert imd.returncode == 2
        last = said.decode().strip().splitlines()[-1]
        assert last.startswith(f"narupa-imd: tls_key is '{folder.client[1]}'")


async def test_the_link_to_imd_says_once_what_is_wrong_and_goes_on_once_it_is_right(folder: Folder) -> None:
    config = ImdConfig(port=0, store="memory", lobby="127.0.0.1:1", drain_grace_s=0.1, **folder.listening)
    async with serving("imd", config, ImdApp(config)) as bound:
        for place, trusted, why in (
            (f"{TLS_SCHEME}{bound.address}", folder.other_ca, "not of an authority that is trusted here"),
            (f"{TLS_SCHEME}{bound.address}", folder.path / "no.pem", "cannot be read"),
            (bound.address, folder.ca, "it expects TLS"),
            (f"{TLS_SCHEME}{bound.address}", folder.ca, ""),
        ):
            tries = 0

            async def find(place: str = place) -> list[str]:
                nonlocal tries
                tries += 1
                return [place]

            link = ImdLink(find, lambda: "", lambda acting: None, TlsConfig(trusted))
            with capture_logs() as logs:
                following = asyncio.create_task(link.run())
                async with asyncio.timeout(LIMIT_S):
                    while not link.connected and tries < 3:
                        await asyncio.sleep(0.01)
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            reasons = [entry["reason"] for entry in logs if entry["event"] == "imd_not_reached"]
            assert len(reasons) == (1 if why else 0)
            assert all(why in reason for reason in reasons)


async def test_imd_can_be_used_over_tls_without_a_lobby(folder: Folder) -> None:
    config = ImdConfig(port=0, store="memory", lobby="127.0.0.1:1", drain_grace_s=0.1, **folder.listening)
    tls = TlsConfig(folder.ca)
    async with serving("imd", config, ImdApp(config)) as bound:
        async with narupa_client.open(imd=bound.address, tls=tls) as session:
            await session.state.update({"note": "here"})
        wrong = replace(tls, ca=folder.other_ca)
        async with narupa_client.open(imd=bound.address, tls=wrong, give_up_after_s=0) as session:
            with pytest.raises(UnavailableError, match="not of an authority that is trusted"):
                await session.state.update({"note": "here"})


@contextlib.asynccontextmanager
async def program(*arguments: str | Path, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command line as a process, which is interrupted at the end."""
    command = [sys.executable, "-m", "narupa_client.cli", *map(str, arguments)]
    running = await asyncio.create_subprocess_exec(
        *command, stdout=PIPE, stderr=PIPE, env={**os.environ, **environment}
    )
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.send_signal(signal.SIGINT)
        async with asyncio.timeout(LIMIT_S):
            await running.communicate()


async def outcome(*arguments: str | Path, **environment: str) -> tuple[int | None, str, str]:
    """Exit status, output and messages of a command that ends by itself."""
    async with asyncio.timeout(LIMIT_S), program(*arguments, **environment) as running:
        said, messages = await running.communicate()
    return running.returncode, said.decode(), messages.decode()


@pytest.mark.e2e
async def test_certificates_and_a_session_over_tls_are_two_commands(tmp_path: Path) -> None:
    write(tmp_path / "ethanol.xyz", molecule("CH3CH2OH"))
    source, folder = f"{tmp_path / 'ethanol.xyz'}?calculator=lj&calculator.sigma=0.5&calculator.epsilon=0.01", tmp_path / "certs"
    status, _, said = await outcome("session", source, "--lobby", "127.0.0.1:0", "--certs", folder)
    assert status == 2 and "ca.pem" in said and f"narupa certs {folder}" in said
    assert (await outcome("certs", folder))[0] == 0
    ports = ("--trajectory-port=0", "--imd-port=0", "--gateway-port=0", "--websocket-port=0")
    async with program(
        "session", source, "--lobby", "127.0.0.1:0", "--certs", folder, *ports, COLUMNS="400"
    ) as session:
        assert session.stderr
        greeting = ""
        async with asyncio.timeout(LIMIT_S):
            while "Ctrl-C ends the session" not in greeting:
                line = await session.stderr.readline()
                assert line, greeting
                greeting += line.decode()
        assert f"NARUPA_TLS_CA={folder / 'ca.pem'}" in greeting
        lobby = greeting.partition("NARUPA_LOBBY=")[2].split()[0]
        trusting = {"NARUPA_LOBBY": lobby, "NARUPA_TLS_CA": str(folder / "ca.pem")}
        status, said, why = await outcome("watch", "--json", "--frames", "2", **trusting)
        assert status == 0 and len(said.splitlines()) == 2, why
        status, _, why = await outcome("services", NARUPA_LOBBY=lobby)
        assert status == 1 and "it expects TLS" in why
