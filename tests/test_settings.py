"""Settings: what is unknown or wrong is told in one sentence, without its value."""

import pytest
from pydantic import SecretStr

from callflow_service.domain.signature import HashPolicy
from callflow_service.settings import Settings, SettingsError, driver_url, load_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CALLFLOW_{name.upper()}", raising=False)


def test_the_settings_have_their_documented_defaults() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert (settings.api_enabled, settings.allow_get, settings.error_envelope) == (True, False, "status")
    assert settings.hash_policy is HashPolicy.STRICT


def test_lists_are_given_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLFLOW_TRUSTED_PROXIES", " 10.0.0.0/8, ::1 ,")
    monkeypatch.setenv("CALLFLOW_TECHNOLOGIES", "iax2, SIP")
    settings = load_settings()
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1")
    assert settings.technologies == ("IAX2", "SIP")


def test_an_unknown_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLFLOW_ALOW_GET", "canary")
    with pytest.raises(SettingsError, match=r"^Unknown setting CALLFLOW_ALOW_GET; the settings are ") as error:
        load_settings()
    assert "canary" not in str(error.value)


def test_the_tests_own_settings_are_not_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLFLOW_TEST_DATABASE_URL", "anything")
    load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CALLFLOW_PORT", "canary"),
        ("CALLFLOW_PORT", "65536"),
        ("CALLFLOW_WORKERS", "0"),
        ("CALLFLOW_ALLOW_GET", "canary"),
        ("CALLFLOW_HASH_POLICY", "canary"),
        ("CALLFLOW_ERROR_ENVELOPE", "canary"),
        ("CALLFLOW_TRUSTED_PROXIES", "canary"),
        ("CALLFLOW_DATABASE_URL", "canary"),
        ("CALLFLOW_DATABASE_URL", "mysql://canary:canary@host/canary"),
        ("CALLFLOW_DATABASE_URL", "postgresql://user:pass@word:canary@host/db"),
        ("CALLFLOW_DATABASE_URL", "postgresql://user@host:canary/db"),
        ("CALLFLOW_REDIS_URL", "canary"),
        ("CALLFLOW_REDIS_URL", "memcached://:canary@host"),
        ("CALLFLOW_REDIS_URL", "redis://:pass/canary@host/0"),
        ("CALLFLOW_GUESS_LIMIT", "canary"),
        ("CALLFLOW_GUESS_LIMIT", "100/minute;0/hour"),
        ("CALLFLOW_ADDRESS_GUESS_LIMIT", "canary"),
        ("CALLFLOW_DATABASE_URL", "postgresql://user:pass@host:canary,other/db"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_quoted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"^The setting {name} is wrong: ") as error:
        load_settings()
    assert value not in str(error.value)
    assert "canary" not in str(error.value)


@pytest.mark.parametrize("driver", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg"])
def test_any_postgresql_url_is_read_with_our_driver(driver: str) -> None:
    url = driver_url(SecretStr(f"{driver}://user:pass@host:5433/db"))
    assert url.render_as_string(hide_password=False) == "postgresql+asyncpg://user:pass@host:5433/db"


@pytest.mark.parametrize(
    ("written", "hosts", "ports"),
    [
        ("user:pass@h1:5433,h2/db", "h1,h2", "5433,5432"),
        ("user@[::1]:5433,[::2]/db", "::1,::2", "5433,5432"),
        ("h1,h2,h3/db", "h1,h2,h3", "5432,5432,5432"),
    ],
)
def test_several_hosts_are_read_as_libpq_has_them(written: str, hosts: str, ports: str) -> None:
    url = driver_url(SecretStr(f"postgresql://{written}?sslmode=require"))
    assert (url.host, url.port, url.database) == (None, None, "db")
    assert dict(url.query) == {"host": hosts, "port": ports, "sslmode": "require"}


def test_a_password_is_never_shown() -> None:
    assert "canary" not in repr(Settings(database_url=SecretStr("postgresql://user:canary@host/db")))
