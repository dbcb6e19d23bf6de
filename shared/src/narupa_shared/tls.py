"""TLS: the certificates that are shown, the authorities that are trusted, and what is wrong with their files."""

from __future__ import annotations

import datetime
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import structlog

from narupa_shared.errors import InvalidArgumentError

if TYPE_CHECKING:  # clients have no settings of services, and nobody without TLS is to wait for cryptography's X.509
    from cryptography import x509

    from narupa_shared.config import ServiceConfig

log = structlog.get_logger(__name__)

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
EXPIRY_WARNING: Final = datetime.timedelta(days=14)
StrPath = str | os.PathLike[str]
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all good


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """How a client makes TLS connections. The host's name or address must be one that the server's certificate names.

    Attributes:
        ca: PEM file with the authorities to trust; None trusts those that the system trusts.
        cert: PEM file with the client's certificate, for servers that ask for one.
        key: PEM file with its private key, without a passphrase.
    """

    ca: StrPath | None = None
    cert: StrPath | None = None
    key: StrPath | None = None

    def context(self) -> ssl.SSLContext:
        """For one connection that speaks HTTP/2; the files are read anew, so that renewed ones are used.

        Raises:
            InvalidArgumentError: a file is missing, holds something else, has expired, or key and certificate do not match.
        """
        self.check()
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except OSError as error:  # as `check` found nothing wrong, this is something that OpenSSL alone objects to
            raise InvalidArgumentError(
                "tls_cert" if self.cert else "tls_ca", _shown(self.cert or self.ca), str(error)
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["h2"])
        return context

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """The same for grpcio's channels; errors as for `context`."""
        self.check()
        ca = self.ca or _system_authorities()
        trusted = _read("tls_ca", Path(ca)) if ca else None
        if self.cert is None or self.key is None:
            return grpc.ssl_channel_credentials(trusted)
        key, cert = _read("tls_key", Path(self.key)), _read("tls_cert", Path(self.cert))
        return grpc.ssl_channel_credentials(trusted, key, cert)

    def check(self) -> None:
        """Returns when every file is as it has to be; errors as for `context`."""
        if self.ca is not None:
            authorities("tls_ca", Path(self.ca))
        if self.cert is not None and self.key is not None:
            Pair.read(Path(self.cert), Path(self.key))
        elif self.key is not None:
            raise InvalidArgumentError(
                "tls_key", _shown(self.key), "it needs tls_cert, the certificate it belongs to, too"
            )
        elif self.cert is not None:
            raise InvalidArgumentError("tls_cert", _shown(self.cert), "its private key, tls_key, is needed, too")


def tls_config(config: ServiceConfig) -> TlsConfig:
    """How a service calls others: it trusts `tls_ca`, and shows the certificate that it listens with to those who ask."""
    return TlsConfig(config.tls_ca, config.tls_cert, config.tls_key)


def client_context(config: ServiceConfig) -> ssl.SSLContext:
    """For a connection that a service makes; errors as for `TlsConfig.context`."""
    return tls_config(config).context()


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate, with those that lead to its authority, and its private key; both PEM.

    Attributes:
        chain: The certificates.
        key: The private key.
        expires_at: Of the first certificate.
    """

    chain: bytes
    key: bytes
    expires_at: datetime.datetime

    @classmethod
    def read(cls, cert: Path, key: Path, now: datetime.datetime | None = None) -> Pair:
        """What the files hold.

        Raises:
            InvalidArgumentError: a file is missing or holds something else, they do not match, or the certificate is not
                valid at `now` (unset: the present).
        """
        from cryptography.hazmat.primitives import serialization

        chain = _read("tls_cert", cert)
        certificates = _certificates("tls_cert", cert, chain)
        leaf = certificates[0]
        _check_time("tls_cert", cert, leaf, now)
        secret = _read("tls_key", key)
        try:
            private = serialization.load_pem_private_key(secret, password=None)
        except TypeError as error:
            reason = "the key has a passphrase; write it without one, readable by the service only"
            raise InvalidArgumentError("tls_key", _shown(key), reason) from error
        except Exception as error:  # cryptography has several, for keys that it knows and does not support
            raise InvalidArgumentError("tls_key", _shown(key), "it holds no private key in PEM form") from error
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
            reason = (
                f"it is not the key of the first certificate in {_shown(cert)}; name the two that were made together"
            )
            raise InvalidArgumentError("tls_key", _shown(key), reason)
        return cls(chain, secret, leaf.not_valid_after_utc)


def authorities(field: str, path: Path, now: datetime.datetime | None = None) -> bytes:
    """The PEM certificates of authorities in `path`.

    Raises:
        InvalidArgumentError: it is missing, holds something else, or nothing in it is valid at `now` (unset: the present).
    """
    data = _read(field, path)
    certificates = _certificates(field, path, data)
    moment = now or datetime.datetime.now(datetime.UTC)
    if not any(each.not_valid_before_utc <= moment <= each.not_valid_after_utc for each in certificates):
        _check_time(field, path, certificates[0], moment)
    return data


def server_credentials(config: ServiceConfig) -> grpc.ServerCredentials:
    """What a service with `tls_cert` listens with. Renewed files are used for new connections, without a restart.

    Raises:
        InvalidArgumentError: a file is missing, holds something else, has expired, or key and certificate do not match.
    """
    files = ServerFiles(config)
    return grpc.dynamic_ssl_server_credentials(
        files.configuration(),
        files.renewed,  # type: ignore[arg-type]  # the stubs do not know that None means no change
        require_client_authentication=config.tls_client_ca is not None,
    )


def server_context(config: ServiceConfig) -> ssl.SSLContext:
    """The same, for listeners that are no gRPC server; errors as for `server_credentials`."""
    cert, key, client_ca = config.tls_cert, config.tls_key, config.tls_client_ca
    assert cert is not None and key is not None, "the settings' own checks see to it"

    def versions() -> object:
        return [_version(path) for path in (cert, key, client_ca) if path]

    def made() -> ssl.SSLContext:
        Pair.read(cert, key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(cert, key)
        if client_ca is not None:
            context.load_verify_locations(cadata=authorities("tls_client_ca", client_ca).decode())
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    seen, newest = versions(), made()
    listening = newest

    def look_again(connection: ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
        """Called at each new connection."""
        nonlocal seen, newest
        if (now := versions()) != seen:
            seen = now
            try:
                newest = made()
            except (InvalidArgumentError, OSError) as error:  # perhaps only half written yet: it is looked at again
                log.warning("certificate_not_renewed", reason=str(error))
                return
            log.info("certificate_renewed", tls_cert=str(cert))
        connection.context = newest

    listening.sni_callback = look_again
    return listening


class ServerFiles:
    """The files that a service listens with, looked at again at each new connection."""

    def __init__(self, config: ServiceConfig) -> None:
        assert config.tls_cert is not None and config.tls_key is not None, "the settings' own checks see to it"
        self._cert = config.tls_cert
        self._key = config.tls_key
        self._client_ca = config.tls_client_ca
        self._seen: object = None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """What the files hold now; errors as for `server_credentials`."""
        self._seen = self._state()
        pair = Pair.read(self._cert, self._key)
        if pair.expires_at - datetime.datetime.now(datetime.UTC) < EXPIRY_WARNING:
            log.warning("certificate_expires_soon", tls_cert=str(self._cert), expires_at=pair.expires_at.isoformat())
        clients = authorities("tls_client_ca", self._client_ca) if self._client_ca else None
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], clients)

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What the files hold, if they have changed and are whole; None otherwise. Called on gRPC's threads."""
        try:
            if self._state() == self._seen:
                return None
            configuration = self.configuration()
        except InvalidArgumentError as error:  # perhaps only half written yet: it is looked at again
            log.warning("certificate_not_renewed", reason=str(error))
            return None
        log.info("certificate_renewed", tls_cert=str(self._cert))
        return configuration

    def _state(self) -> object:
        return [_version(path) for path in (self._cert, self._key, self._client_ca) if path]


def _version(path: Path) -> tuple[int, int, int] | None:
    """Differs when the file has changed; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read(field: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = f"it cannot be read ({(error.strerror or str(error)).lower()})"
        raise InvalidArgumentError(field, _shown(path), reason) from error
    if len(data) > MAX_FILE_BYTES:
        raise InvalidArgumentError(field, _shown(path), f"it has more than {MAX_FILE_BYTES} bytes")
    return data


def _certificates(field: str, path: Path, data: bytes) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise InvalidArgumentError(field, _shown(path), "it holds no certificate in PEM form") from error


def _check_time(field: str, path: Path, certificate: x509.Certificate, now: datetime.datetime | None) -> None:
    moment = now or datetime.datetime.now(datetime.UTC)
    if moment > certificate.not_valid_after_utc:
        reason = f"the certificate expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it"
        raise InvalidArgumentError(field, _shown(path), reason)
    if moment < certificate.not_valid_before_utc:
        reason = (
            f"the certificate is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on; "
            "set this machine's clock, or make another"
        )
        raise InvalidArgumentError(field, _shown(path), reason)


def _system_authorities() -> Path | None:
    """The file of authorities that OpenSSL uses here; None where there is none, and grpcio's own list has to do."""
    file = ssl.get_default_verify_paths().cafile
    return Path(file) if file else None


def _shown(path: StrPath | None) -> str:
    return str(path)
