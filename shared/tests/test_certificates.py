"""Certificates that are made here: what is in them, and that OpenSSL takes them."""

from __future__ import annotations

import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from narupa_shared.certificates import AUTHORITY_LIFE, Authority, hosts_of
from narupa_shared.errors import InvalidArgumentError

NOW = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
HOSTS = ["lab.example.org", "*.md.example.org", "192.0.2.7", "2001:db8::7"]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new(NOW)


def loaded(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def policy(authority: Authority, at: datetime.datetime = NOW) -> PolicyBuilder:
    return PolicyBuilder().store(Store([loaded(authority.issued.certificate)])).time(at.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("host", "right"),
    [
        ("lab.example.org", True),
        ("run1.md.example.org", True),
        ("192.0.2.7", True),
        ("2001:db8::7", True),
        ("example.org", False),
        ("a.b.md.example.org", False),
        ("192.0.2.8", False),
    ],
)
def test_a_server_is_known_by_its_hosts_and_by_no_other(authority: Authority, host: str, right: bool) -> None:
    server = loaded(authority.server(HOSTS, NOW, 30).certificate)
    try:
        subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        subject = x509.DNSName(host)
    assert isinstance(subject, x509.DNSName | x509.IPAddress)
    verifier = policy(authority).build_server_verifier(subject)
    if right:
        verifier.verify(server, [])
    else:
        with pytest.raises(VerificationError):
            verifier.verify(server, [])


def test_clients_and_services_may_both_call(authority: Authority) -> None:
    for issued in (authority.client("narupa client", NOW, 30), authority.server(["lab"], NOW, 30)):
        uses = loaded(issued.certificate).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert ExtendedKeyUsageOID.CLIENT_AUTH in uses


def test_a_client_cannot_pass_for_a_server(authority: Authority) -> None:
    uses = loaded(authority.client("c", NOW, 30).certificate).extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert ExtendedKeyUsageOID.SERVER_AUTH not in uses.value


def test_another_authority_with_the_same_name_is_not_trusted(authority: Authority) -> None:
    server = loaded(Authority.new(NOW).server(["lab"], NOW, 30).certificate)
    with pytest.raises(VerificationError):
        policy(authority).build_server_verifier(x509.DNSName("lab")).verify(server, [])


def test_certificates_end_when_they_were_told_to_and_with_their_authority_at_the_latest(authority: Authority) -> None:
    assert loaded(authority.server(["lab"], NOW, 30).certificate).not_valid_after_utc == NOW + datetime.timedelta(30)
    late = NOW + AUTHORITY_LIFE - datetime.timedelta(days=1)
    last = loaded(authority.server(["lab"], late, 30).certificate)
    assert last.not_valid_after_utc == NOW + AUTHORITY_LIFE


def test_an_authority_goes_on_from_its_files(authority: Authority) -> None:
    again = Authority.read(authority.issued.certificate, authority.issued.key, NOW)
    server = loaded(again.server(["lab"], NOW, 30).certificate)
    policy(authority).build_server_verifier(x509.DNSName("lab")).verify(server, [])


def test_what_is_no_authority_signs_nothing(authority: Authority) -> None:
    server, other = authority.server(["lab"], NOW, 30), Authority.new(NOW)
    for certificate, key, why in (
        (server.certificate, server.key, "not those of one authority"),
        (authority.issued.certificate, other.issued.key, "not those of one authority"),
        (b"", authority.issued.key, "no certificate and key"),
        (authority.issued.certificate, b"", "no certificate and key"),
    ):
        with pytest.raises(InvalidArgumentError, match=why):
            Authority.read(certificate, key, NOW)
    with pytest.raises(InvalidArgumentError, match="it expired at 2039-12-31"):
        Authority.read(authority.issued.certificate, authority.issued.key, NOW + AUTHORITY_LIFE)


@pytest.mark.parametrize(
    "host", ["", "https://lab", "lab:443", "a b", "-lab", "lab.", "ä.org", "256.1.1.1", "*", "x" * 254, "a.*.org"]
)
def test_hosts_that_are_none_are_refused(authority: Authority, host: str) -> None:
    with pytest.raises(InvalidArgumentError, match="host is"):
        authority.server([host], NOW, 30)


def test_the_hosts_of_a_certificate_can_be_read_again(authority: Authority) -> None:
    assert hosts_of(authority.server([*HOSTS, "LAB.example.org"], NOW, 30).certificate)[:4] == HOSTS
    assert hosts_of(authority.issued.certificate) == hosts_of(b"nothing") == []
