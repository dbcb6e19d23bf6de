"""`narupa certs`: what it writes, renews, and refuses."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from narupa_client.cli.app import app
from narupa_shared.certificates import hosts_of
from narupa_shared.tls import Pair, TlsConfig, authorities

OWN = ["localhost", "127.0.0.1", "::1"]


def certs(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["certs", *map(str, arguments)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_program_makes_files_that_tls_takes(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "certs"
    command = [
        sys.executable,
        "-m",
        "narupa_client.cli",
        "certs",
        str(folder),
        "--host",
        "lab.example.org",
        "--days",
        "7",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(contents(folder)) == [
        "ca-key.pem", "ca.pem", "client-key.pem", "client.pem", "server-key.pem", "server.pem"
    ]  # fmt: skip
    for name in ("ca", "server", "client"):
        assert stat.S_IMODE((folder / f"{name}-key.pem").stat().st_mode) == 0o600
        Pair.read(folder / f"{name}.pem", folder / f"{name}-key.pem")
    TlsConfig(folder / "ca.pem", folder / "client.pem", folder / "client-key.pem").context()
    assert hosts_of((folder / "server.pem").read_bytes()) == ["lab.example.org", *OWN]
    for flag in ("--tls-cert", "--tls-key", "--tls-ca", "--tls-client-ca"):
        assert f"{flag} {folder}" in done.stdout
    assert "made an authority and certificates" in done.stderr and "lab.example.org" in done.stderr


def test_an_authority_is_kept_and_its_certificates_are_renewed(tmp_path: Path) -> None:
    assert certs(tmp_path, "--host", "lab", "--host", "192.0.2.7").exit_code == 0
    first = contents(tmp_path)
    again = certs(tmp_path)
    assert again.exit_code == 0 and "renewed the certificates" in again.stderr
    second = contents(tmp_path)
    assert {name for name in first if first[name] == second[name]} == {"ca.pem", "ca-key.pem"}
    assert hosts_of(second["server.pem"]) == ["lab", "192.0.2.7", *OWN], "the hosts it was made for"
    assert certs(tmp_path, "--host", "other").exit_code == 0
    assert hosts_of((tmp_path / "server.pem").read_bytes()) == ["other", *OWN]


@pytest.mark.parametrize("lost", ["ca.pem", "ca-key.pem"])
def test_an_authority_is_never_overwritten(tmp_path: Path, lost: str) -> None:
    assert certs(tmp_path).exit_code == 0
    (tmp_path / lost).unlink()
    before = contents(tmp_path)
    result = certs(tmp_path)
    assert result.exit_code == 2 and f"without {lost}, and an authority is never overwritten" in result.stderr
    assert contents(tmp_path) == before


def test_what_is_no_authority_is_left_alone(tmp_path: Path) -> None:
    assert certs(tmp_path).exit_code == 0
    (tmp_path / "ca-key.pem").write_bytes((tmp_path / "server-key.pem").read_bytes())
    before = contents(tmp_path)
    result = certs(tmp_path)
    assert result.exit_code == 2 and "not those of one authority" in result.stderr
    assert contents(tmp_path) == before


def test_wrong_hosts_and_days_write_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    result = certs(folder, "--host", "https://lab:443")
    assert result.exit_code == 2 and "'https://lab:443'" in result.stderr and "without scheme or port" in result.stderr
    assert certs(folder, "--days", "0").exit_code == 2
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = certs(tmp_path / "file" / "certs")
    assert result.exit_code == 1 and "cannot write to" in result.stderr and "Not a directory" in result.stderr


def test_without_hosts_only_this_machine_is_served(tmp_path: Path) -> None:
    assert certs(tmp_path).exit_code == 0
    assert hosts_of((tmp_path / "server.pem").read_bytes()) == OWN
    authorities("tls_ca", tmp_path / "ca.pem")
