"""Why a TLS connection was not made or was cut, in one sentence that says what to do."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Final

LIMIT_S: Final = 2.0

WANTS_TLS: Final = "it expects TLS; call it with TLS, and name its authority's file as tls_ca if it has one of its own"
NO_TLS: Final = "it does not speak TLS; call it without TLS, or give it a certificate"

# OpenSSL's codes of what is wrong with the server's certificate.
_CERTIFICATE: Final = {
    9: "its certificate is not valid yet; compare the clocks of both machines",
    10: "its certificate has expired; it has to be renewed",
    62: "its certificate is for other names than this one; call it by one of them, or make it a certificate with this one",
    64: "its certificate is for other addresses than this one; call it by one of them, or make it a certificate with this one",
}
_UNTRUSTED: Final = (
    "its certificate is not of an authority that is trusted here; "
    "if it is the right server, name its authority's file as tls_ca"
)
_NO_CERTIFICATE: Final = "it asks for a client certificate; name one as tls_cert, and its key as tls_key"
_REFUSED: Final = "it does not accept our certificate; take a client certificate of the authority that it trusts"
_OTHER_PROTOCOL: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")


def refusal(error: ssl.SSLError) -> str:
    """Why a connection to a server failed in TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CERTIFICATE.get(error.verify_code, _UNTRUSTED)
    reason = (error.reason or str(error)).upper().replace(" ", "_")
    if any(name in reason for name in _OTHER_PROTOCOL):
        return NO_TLS
    return f"TLS failed ({reason.lower().replace('_', ' ')})"


async def why_cut(host: str, port: int, context: ssl.SSLContext | None, shows_certificate: bool = False) -> str:
    """Why a server cut or refused a fresh connection, found out by connecting once more; empty when TLS is not the reason.

    Args:
        host: As it was called.
        port: As it was called.
        context: What was used; None without TLS.
        shows_certificate: Whether `context` has a certificate to show.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LIMIT_S):
            if context is None:
                return WANTS_TLS if await _speaks_tls(host, port) else ""
            try:
                if await _cut_after_handshake(host, port, context):
                    return _REFUSED if shows_certificate else _NO_CERTIFICATE
            except ssl.SSLError as error:
                return refusal(error)
    return ""


async def _speaks_tls(host: str, port: int) -> bool:
    # Nothing is sent to the server and nothing that it sends is used, so it matters little who it is.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as error:
        return refusal(error) != NO_TLS
    except OSError:
        return False
    writer.transport.abort()
    return True


async def _cut_after_handshake(host: str, port: int, context: ssl.SSLContext) -> bool:
    """Whether the server says nothing, while any server of HTTP/2 begins with its settings.

    In TLS 1.3 the handshake is over for us before the server has seen our certificate, or that there is none; in 1.2 it
    is cut. gRPC's servers do not say why.

    Raises:
        ssl.SSLError: the handshake failed.
    """
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
    except ConnectionResetError:
        return True
    except ssl.SSLError:
        raise
    except OSError:
        return False
    try:
        return not await reader.read(1)
    except OSError:  # an alert, or the end
        return True
    finally:
        writer.transport.abort()
