"""Makes certificates: an authority of one's own, and the certificates that it signs for services and clients."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from narupa_shared.errors import InvalidArgumentError

# Clocks of other machines may be a little behind.
BACKDATED: Final = datetime.timedelta(hours=1)
AUTHORITY_LIFE: Final = datetime.timedelta(days=3650)
_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its private key, both PEM; the key has no passphrase."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs certificates with a key of its own (ECDSA, P-256)."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def new(cls, now: datetime.datetime, name: str = "Narupa authority") -> Authority:
        """An authority that nobody knows yet, good for ten years from `now` (with a time zone)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name)
        builder = _builder(subject, subject, key, now, now + AUTHORITY_LIFE)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(certificates=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def read(cls, certificate: bytes, key: bytes, now: datetime.datetime) -> Authority:
        """The authority of two PEM texts.

        Raises:
            InvalidArgumentError: they are no authority, do not belong together, or it has expired at `now`.
        """
        try:
            loaded = x509.load_pem_x509_certificate(certificate)
            secret = serialization.load_pem_private_key(key, password=None)
            authority = loaded.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (ValueError, TypeError, x509.ExtensionNotFound) as error:
            raise InvalidArgumentError(
                "authority", "its files", f"they hold no certificate and key of one: {error}"
            ) from error
        if (
            not authority
            or not isinstance(secret, ec.EllipticCurvePrivateKey)
            or secret.public_key() != loaded.public_key()
        ):
            reason = "certificate and key are not those of one authority that was made here"
            raise InvalidArgumentError("authority", loaded.subject.rfc4514_string(), reason)
        if loaded.not_valid_after_utc <= now:
            reason = f"it expired at {loaded.not_valid_after_utc:%Y-%m-%d}; make a new one in another folder"
            raise InvalidArgumentError("authority", loaded.subject.rfc4514_string(), reason)
        return cls(loaded, secret)

    @property
    def issued(self) -> Issued:
        """The authority's own certificate and key."""
        return Issued(self._certificate.public_bytes(serialization.Encoding.PEM), _pem(self._key))

    def server(self, hosts: Sequence[str], now: datetime.datetime, days: float) -> Issued:
        """For a service that clients know by any of `hosts`, names (`*.` at the front stands for one label) or addresses.

        It is also good for the calls that services make. It ends with the authority at the latest.

        Raises:
            InvalidArgumentError: there is no host, or one is neither a name nor an address.
        """
        if not hosts:
            raise InvalidArgumentError("host", "", "name at least one")
        names = [alternative_name(host) for host in dict.fromkeys(hosts)]
        uses = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        return self._issue(hosts[0], now, days, uses, x509.SubjectAlternativeName(names))

    def client(self, name: str, now: datetime.datetime, days: float) -> Issued:
        """For clients of services that ask for a certificate."""
        return self._issue(name, now, days, (ExtendedKeyUsageOID.CLIENT_AUTH,), None)

    def _issue(
        self,
        name: str,
        now: datetime.datetime,
        days: float,
        uses: Sequence[x509.ObjectIdentifier],
        names: x509.SubjectAlternativeName | None,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        until = min(now + datetime.timedelta(days=days), self._certificate.not_valid_after_utc)
        builder = _builder(_subject(name), self._certificate.subject, key, now, until)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Issued(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def alternative_name(host: str) -> x509.GeneralName:
    """`host` as certificates say it.

    Raises:
        InvalidArgumentError: it is neither a name nor an address.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    # Of four numbers, one of which is too large, nobody means a name.
    if len(host) > 253 or not _NAME.fullmatch(host) or re.fullmatch(r"[0-9.]+", host):
        reason = "it is neither a host name (ASCII, without scheme or port) nor an IP address"
        raise InvalidArgumentError("host", host, reason)
    return x509.DNSName(host.lower())


def hosts_of(certificate: bytes) -> list[str]:
    """The names and addresses in a PEM certificate; none when it holds none, or is no certificate."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate)
        names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return []
    return [str(name.value) for name in names]


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, until) - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(certificates: bool) -> x509.KeyUsage:
    """For signing certificates, or else handshakes."""
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    return key.private_bytes(*form, serialization.NoEncryption())
