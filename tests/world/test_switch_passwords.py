"""The fast hashes of switches' passwords."""

import re

import pytest

from callflow_service.credentials.switch_passwords import hash_switch_password, is_switch_password


def test_a_hash_is_the_scheme_the_salt_and_the_digest() -> None:
    assert re.fullmatch(r"sha256\$[0-9a-f]{32}\$[0-9a-f]{64}", hash_switch_password("switch-secret"))


def test_a_hash_fits_its_own_password_and_no_other() -> None:
    stored = hash_switch_password("Zoë 😀")
    assert is_switch_password("Zoë 😀", stored)
    assert not is_switch_password("zoë 😀", stored)


def test_one_password_has_another_hash_each_time() -> None:
    assert hash_switch_password("switch-secret") != hash_switch_password("switch-secret")


def test_a_known_hash_stays_right() -> None:
    # echo -n switch-secret | openssl dgst -sha256 -mac HMAC -macopt hexkey:00...0f
    salt = "000102030405060708090a0b0c0d0e0f"
    assert is_switch_password(
        "switch-secret", f"sha256${salt}$468264849bfce288f0746b3e5747ca91994a6d27ecb3cee6cd5e47331a67c99a"
    )


@pytest.mark.parametrize("stored", ["", "sha256", "sha256$", "sha256$$", "sha256$zz$zz", "sha512$00$00", "plain", "é"])
def test_what_is_no_hash_fits_no_password(stored: str) -> None:
    assert not is_switch_password("", stored)
    assert not is_switch_password("plain", stored)
