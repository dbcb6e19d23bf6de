"""The harness that every service runs in: listener, health, reflection, signals, logs, metrics and a stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar, runtime_checkable

import grpc
import grpc.aio
import prometheus_client
import structlog
from google.protobuf import descriptor_pool
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from narupa_shared.access import METHODS, Access, missing
from narupa_shared.auth import AuthInterceptor, TokenVerifier
from narupa_shared.config import ServiceConfig
from narupa_shared.errors import InvalidArgumentError, NarupaError
from narupa_shared.freed_memory import given_back
from narupa_shared.logs import configure_logs
from narupa_shared.loop_lag import measured_loop_lag
from narupa_shared.rpc_errors import ErrorInterceptor
from narupa_shared.rpc_metrics import CountedCall
from narupa_shared.tls import server_credentials, tls_config

log = structlog.get_logger(__name__)

# How long the app may take to end its own tasks, engine and stores after the server has stopped, s.
APP_STOP_LIMIT_S = 5.0
# How long streams may take to end once the app has drained them, and how long their reasons may take to arrive, s.
STREAM_END_LIMIT_S = 0.5
REASON_ARRIVAL_S = 0.05


SERVICE: Final = prometheus_client.Gauge("narupa_service_info", "1, with what this process is.", ["service", "session"])


class StartError(Exception):
    """The service cannot start: its text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The address that a service listens on."""

    host: str
    port: int

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class App(Protocol):
    """What a service gives to the harness.

    One that has an operator (the lobby) also has `operator`, an `OperatorCheck` that tells whether a key sent from an
    address is the operator's. One that decides itself who its callers are (the gateway) has `access`, a table of its own, and
    `server_options`, channel arguments that are stricter than every service's.
    """

    @property
    def service_names(self) -> Sequence[str]:
        """Full proto names, for health and reflection."""

    @property
    def verifier(self) -> TokenVerifier | None:
        """Checks tokens that callers present; None refuses every token."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Every servicer is registered."""

    def running(self, bound: Bound) -> AbstractAsyncContextManager[None]:
        """Background tasks, engine and registration run while this is open; entered once the port is bound."""

    async def drain(self) -> None:
        """Every stream ends with a reason. Called when no new call is wanted, before the server stops."""


@runtime_checkable
class Leaving(Protocol):
    """What an app has besides when it decides for itself when it ends."""

    async def until_end(self, stop: asyncio.Event) -> None:
        """Returns when the service is to end: some time after `stop` is set by a signal, or of its own accord."""


AnyConfig = TypeVar("AnyConfig", bound=ServiceConfig)


def server_options(config: ServiceConfig) -> list[tuple[str, int]]:
    """gRPC's channel arguments for every server here."""
    return [
        ("grpc.so_reuseport", 0),  # otherwise a second server silently shares the port
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.max_concurrent_streams", 1000),
        # A peer that went away without a word is noticed, and its streams end, within these 8 s.
        ("grpc.keepalive_time_ms", 5_000),
        ("grpc.keepalive_timeout_ms", 3_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ]


def served_methods(service_names: Sequence[str]) -> list[str]:
    """The full path of every method of the services with these full names, whose generated code must be loaded."""
    services = (descriptor_pool.Default().FindServiceByName(name) for name in service_names)
    return [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]


@contextlib.asynccontextmanager
async def serving(name: str, config: ServiceConfig, app: App) -> AsyncIterator[Bound]:
    """The service answers on its port while this is open, and stops in order at the end.

    Stop order: health says NOT_SERVING; the app ends its streams with a reason, which is given time to arrive; the server
    refuses new calls and waits `drain_grace_s` for running ones; the app's tasks, engine and stores close.

    Raises:
        StartError: the port is in use or not allowed, or the table of access lacks a method.
        InvalidArgumentError: a file for TLS is missing, holds something else, or has expired.
    """
    tls_config(config).check()
    credentials = server_credentials(config) if config.tls_cert else None
    table: Mapping[str, Access] = getattr(app, "access", METHODS)
    if uncovered := missing(served_methods(app.service_names), table):
        raise StartError(f"narupa_shared.access does not say who may call {', '.join(uncovered)}; name them there")
    errors = ErrorInterceptor(CountedCall)
    doorkeeper = AuthInterceptor(config.open, app.verifier, table, operator=getattr(app, "operator", None))
    options = dict(server_options(config)) | dict(getattr(app, "server_options", ()))
    server = grpc.aio.server(interceptors=[errors, doorkeeper], options=list(options.items()))
    app.add_to(server)
    health_servicer = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection(
        [*app.service_names, health.SERVICE_NAME, reflection.SERVICE_NAME],
        server,
    )
    wanted = Bound(config.host, config.port)
    try:
        port = (
            server.add_secure_port(wanted.address, credentials)
            if credentials
            else server.add_insecure_port(wanted.address)
        )
    except RuntimeError as error:
        raise StartError(
            f"cannot listen on {wanted.address}: the port is in use or the address is not this machine's; "
            f"stop what uses it, or choose another with --port (NARUPA_{name.upper()}_PORT)"
        ) from error
    bound = Bound(config.host, port)
    await server.start()
    try:
        async with measured_loop_lag(), given_back(), app.running(bound):
            for service in ("", *app.service_names):
                await health_servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
            log.info("service_ready", address=bound.address, open_access=config.open, tls=credentials is not None)
            try:
                yield bound
            finally:
                log.info("service_stopping")
                await health_servicer.enter_graceful_shutdown()
                await app.drain()
                await _streams_ended(errors, min(STREAM_END_LIMIT_S, config.drain_grace_s))
                await server.stop(config.drain_grace_s)
    finally:
        await server.stop(None)
        log.info("service_stopped")


async def _streams_ended(calls: ErrorInterceptor, limit_s: float) -> None:
    """Drained streams have ended before the connections do: some clients drop all that they hold when told of that."""
    if not calls.open_streams:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            while calls.open_streams:  # noqa: ASYNC110 - the end of a stream wakes nobody else
                await asyncio.sleep(0.01)
    await asyncio.sleep(min(REASON_ARRIVAL_S, limit_s))


def run(name: str, config: AnyConfig, app_factory: Callable[[AnyConfig], App]) -> int:
    """Runs one service until SIGINT, SIGTERM or its own end; returns the process's exit status.

    0: stopped as asked. 1: could not start, or failed. 2: an input or setting is wrong.
    """
    configure_logs(name, config.session_id, config.log_level, config.log_format)
    try:
        runner = _runner()
        with runner:
            return runner.run(_run(name, config, app_factory))
    except KeyboardInterrupt:
        return 0
    except StartError as error:
        print(f"narupa-{name}: {error}", file=sys.stderr)
        return 1
    except InvalidArgumentError as error:
        print(f"narupa-{name}: {error}", file=sys.stderr)
        return 2
    except NarupaError as error:
        print(f"narupa-{name}: {error}", file=sys.stderr)
        return 1


def _runner() -> asyncio.Runner:
    if sys.platform == "win32":
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _run(name: str, config: AnyConfig, app_factory: Callable[[AnyConfig], App]) -> int:
    stop = asyncio.Event()
    leaving: asyncio.Task[object] | None = None
    task = asyncio.current_task()

    def end(number: int) -> None:
        if task and not leaving:
            task.cancel()  # whatever the start is waiting for, such as an engine that loads for minutes
        elif leaving and (number == signal.SIGINT or stop.is_set()):
            leaving.cancel()  # Ctrl-C, and a second signal, wait for nobody
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # not on Windows, where KeyboardInterrupt does
            loop.add_signal_handler(number, end, number)
    if config.metrics_port is not None:
        try:
            prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody looks at
            prometheus_client.start_http_server(config.metrics_port, addr=config.host)
            SERVICE.labels(name, config.session_id).set(1)
        except OSError as error:
            raise StartError(
                f"cannot serve metrics on {config.host}:{config.metrics_port}: {error.strerror}"
            ) from error
    app = app_factory(config)
    # Python looks for all garbage once what has come is a quarter of what there is; what is loaded now is not to count.
    gc.collect()
    gc.freeze()
    try:
        async with serving(name, config, app):
            leaving = asyncio.create_task(app.until_end(stop) if isinstance(app, Leaving) else stop.wait(), name="end")
            await asyncio.wait({leaving})
            if not leaving.cancelled():
                leaving.result()
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
                # It has ended in good order; a signal that comes while Python leaves would make another ending of it.
                signal.signal(number, signal.SIG_IGN)
    return 0
