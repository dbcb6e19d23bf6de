"""Join codes: how they look, and how forgivingly they are read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narupa_lobby.join_codes import ALPHABET, digest, new_join_code, new_secret, normalised


def test_codes_are_two_groups_of_signs_that_nobody_mixes_up() -> None:
    codes = {new_join_code() for _ in range(200)}
    assert len(codes) == 200
    assert all(re.fullmatch(f"[{ALPHABET}]{{4}}-[{ALPHABET}]{{4}}", code) for code in codes)
    assert not set("01ILOU") & set(ALPHABET)


@pytest.mark.parametrize(
    "written", ["7KQM-2XRD", "7kqm2xrd", " 7KQM 2XRD\n", "7kqm\N{EN DASH}2xrd", "\uff17KQM-2XRD", "7KQM\u200b2XRD"]
)
def test_a_code_is_read_however_it_was_passed_on(written: str) -> None:
    assert normalised(written) == "7KQM2XRD"


def test_other_codes_stay_other() -> None:
    assert normalised("7KQM-2XRE") != normalised("7KQM-2XRD")
    assert normalised("- ") == ""


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    assert not set(" -\n\t") & set(normalised(text))


@given(st.text(st.characters(codec="ascii")))
def test_reading_once_is_enough(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_has_a_digest(text: str) -> None:
    assert re.fullmatch("[0-9a-f]{64}", digest(text))


def test_a_digest_is_sha_256() -> None:
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_secrets_are_long_and_fit_into_a_link() -> None:
    assert re.fullmatch("[A-Za-z0-9_-]{32}", new_secret())
    assert new_secret() != new_secret()
