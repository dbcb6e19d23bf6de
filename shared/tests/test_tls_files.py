"""Files for TLS: what is wrong with them is said at the start, and renewed ones are taken up."""

from __future__ import annotations

import datetime
import os
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError

from narupa_shared.certificates import Authority, Issued
from narupa_shared.config import ServiceConfig, load, settings_for
from narupa_shared.errors import InvalidArgumentError
from narupa_shared.healthcheck import tls_of
from narupa_shared.tls import ServerFiles, TlsConfig, client_context, server_credentials

NOW = datetime.datetime.now(datetime.UTC)
LONG_AGO = NOW - datetime.timedelta(days=100)


class Settings(ServiceConfig):
    model_config = settings_for("test")


class Folder:
    """An authority's files; and those of certificates that it gives out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.authority = Authority.new(NOW)
        self.ca, _ = self.keep("ca", self.authority.issued)
        self.cert, self.key = self.keep("server", self.authority.server(["localhost"], NOW, 30))

    def keep(self, name: str, issued: Issued) -> tuple[Path, Path]:
        cert, key = self.path / f"{name}.pem", self.path / f"{name}-key.pem"
        cert.write_bytes(issued.certificate)
        key.write_bytes(issued.key)
        return cert, key

    def text(self, content: str) -> Path:
        path = self.path / "text.pem"
        path.write_text(content)
        return path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def refused(config: TlsConfig) -> str:
    with pytest.raises(InvalidArgumentError) as error:
        config.context()
    with pytest.raises(InvalidArgumentError) as same:
        config.channel_credentials()
    assert str(error.value) == str(same.value)
    return str(error.value)


def test_good_files_make_a_context_that_is_strict(folder: Folder) -> None:
    context = TlsConfig(folder.ca, folder.cert, folder.key).context()
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert [ca["subject"] for ca in context.get_ca_certs()] == [((("commonName", "Narupa authority"),),)]


def test_without_an_authority_the_systems_are_trusted() -> None:
    assert TlsConfig().context().verify_mode is ssl.CERT_REQUIRED
    TlsConfig().channel_credentials()


def test_a_missing_file_is_named(folder: Folder) -> None:
    missing = folder.path / "missing.pem"
    assert refused(TlsConfig(missing)) == f"tls_ca is '{missing}': it cannot be read (no such file or directory)"
    assert refused(TlsConfig(None, missing, folder.key)).startswith(f"tls_cert is '{missing}'")
    assert refused(TlsConfig(None, folder.cert, missing)).startswith(f"tls_key is '{missing}'")
    assert "it cannot be read" in refused(TlsConfig(folder.path))


def test_half_a_pair_is_refused(folder: Folder) -> None:
    assert "its private key, tls_key, is needed" in refused(TlsConfig(None, folder.cert))
    assert "it needs tls_cert" in refused(TlsConfig(None, None, folder.key))


def test_a_key_of_another_certificate_is_refused(folder: Folder) -> None:
    _, other = folder.keep("other", folder.authority.client("c", NOW, 30))
    assert f"it is not the key of the first certificate in {folder.cert}" in refused(
        TlsConfig(None, folder.cert, other)
    )


def test_other_content_is_refused(folder: Folder) -> None:
    text = folder.text("Dear reader")
    assert "holds no certificate" in refused(TlsConfig(text))
    assert "holds no certificate" in refused(TlsConfig(None, text, folder.key))
    assert "holds no private key" in refused(TlsConfig(None, folder.cert, text))
    assert "holds no certificate" in refused(TlsConfig(None, folder.key, folder.cert)), "swapped"
    broken = folder.text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert "holds no certificate" in refused(TlsConfig(broken))


def test_a_key_with_a_passphrase_is_refused_and_never_asked_for(folder: Folder) -> None:
    key = serialization.load_pem_private_key(folder.key.read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    folder.key.write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"secret")))
    assert "has a passphrase" in refused(TlsConfig(None, folder.cert, folder.key))


def test_what_has_expired_or_is_not_valid_yet_is_refused(folder: Folder) -> None:
    expired = folder.keep("expired", folder.authority.server(["localhost"], LONG_AGO, 30))
    assert "the certificate expired at " in refused(TlsConfig(None, *expired))
    future = folder.keep("future", folder.authority.server(["localhost"], NOW + datetime.timedelta(days=3), 30))
    assert "valid only from" in refused(TlsConfig(None, *future))
    old, _ = folder.keep("old", Authority.new(NOW - datetime.timedelta(days=4000)).issued)
    assert "the certificate expired at " in refused(TlsConfig(old))


def test_an_expired_authority_beside_a_good_one_does_no_harm(folder: Folder) -> None:
    old = Authority.new(NOW - datetime.timedelta(days=4000)).issued.certificate
    folder.ca.write_bytes(old + folder.ca.read_bytes())
    TlsConfig(folder.ca).context()


def test_settings_name_both_files_or_none(folder: Folder) -> None:
    settings = Settings(tls_cert=folder.cert, tls_key=folder.key, tls_client_ca=folder.ca)
    server_credentials(settings)
    for wrong, where, why in (
        ({"tls_cert": folder.cert}, "tls_key", "its private key is needed, too"),
        ({"tls_key": folder.key}, "tls_key", "it needs tls_cert"),
        ({"tls_client_ca": folder.ca}, "tls_client_ca", "it needs tls_cert"),
    ):
        with pytest.raises(ValidationError) as error:
            Settings(**wrong)  # type: ignore[arg-type]
        assert error.value.errors()[0]["loc"] == (where,) and why in str(error.value)


def test_a_wrong_setting_ends_the_start_with_its_flag_and_variable(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        load(Settings, ["--tls-cert", str(folder.cert)])
    assert "--tls-key (NARUPA_TEST_TLS_KEY) is None: tls_cert is" in capsys.readouterr().err


def test_variables_set_to_nothing_are_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA", "TLS_CA", "LOBBY_TLS"):
        monkeypatch.setenv(f"NARUPA_TEST_{name}", "")
    settings = load(Settings, [])
    assert settings.tls_cert is None and settings.tls_ca is None and settings.lobby_tls is False


def test_the_lobby_is_called_over_tls_where_certificates_are_named(folder: Folder) -> None:
    assert Settings().lobby_tls is False
    assert Settings(tls_ca=folder.ca).lobby_tls is True
    assert Settings(tls_cert=folder.cert, tls_key=folder.key).lobby_tls is True
    assert Settings(tls_ca=folder.ca, lobby_tls=False).lobby_tls is False
    assert Settings(lobby_tls=True).lobby_tls is True
    client_context(Settings(tls_ca=folder.ca))


def test_several_lobbies() -> None:
    assert Settings(lobby="a:1, [::1]:2").lobby_addresses == ("a:1", "[::1]:2")
    assert Settings().lobby_addresses == ("127.0.0.1:38810",)
    for wrong in ("a", "a:1,", "a:1,b", "a:x", "a:99999", ""):
        with pytest.raises(ValidationError, match="is not HOST:PORT"):
            Settings(lobby=wrong)


def server_files(folder: Folder) -> ServerFiles:
    return ServerFiles(Settings(tls_cert=folder.cert, tls_key=folder.key, tls_client_ca=folder.ca))


def touched(path: Path) -> None:
    """A change that even a coarse clock of the file system shows."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def test_renewed_files_are_taken_up_once(folder: Folder) -> None:
    files = server_files(folder)
    files.configuration()
    assert files.renewed() is None
    folder.keep("server", folder.authority.server(["localhost"], NOW, 60))
    touched(folder.cert)
    assert files.renewed() is not None
    assert files.renewed() is None


def test_files_that_are_half_written_are_left_until_they_are_whole(folder: Folder) -> None:
    files = server_files(folder)
    files.configuration()
    fresh = folder.authority.server(["localhost"], NOW, 60)
    folder.cert.write_bytes(fresh.certificate)
    touched(folder.cert)
    assert files.renewed() is None, "the key is still the old one"
    folder.key.unlink()
    assert files.renewed() is None
    folder.key.write_bytes(fresh.key)
    assert files.renewed() is not None


def test_the_health_check_knows_a_service_by_the_certificate_that_it_shows(folder: Folder) -> None:
    environment = {"NARUPA_LOBBY_TLS_CERT": str(folder.cert), "NARUPA_LOBBY_TLS_KEY": str(folder.key)}
    tls = tls_of("lobby", environment)
    assert tls is not None and tls.name == "localhost" and tls.config.ca == folder.cert
    assert tls_of("imd", environment) is None and tls_of("127.0.0.1:1", environment) is None
    by_address = tls_of("127.0.0.1:1", {"NARUPA_TLS_CA": str(folder.ca)})
    assert by_address is not None and by_address.config == TlsConfig(folder.ca)
