"""The shipped Compose file, held against the settings that the service knows."""

from pathlib import Path

import yaml

from callflow_service.settings import PREFIX, Settings

COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())


def test_every_setting_can_be_set_but_those_that_the_container_fixes() -> None:
    fixed = {"DATA_DIR", "HOST", "PORT"}
    expected = {PREFIX + name.upper() for name in Settings.model_fields} - {PREFIX + name for name in fixed}
    assert set(COMPOSE["services"]["service"]["environment"]) == expected
    assert set(COMPOSE["services"]["migrate"]["environment"]) == expected


def test_the_service_trusts_the_subnet_that_its_network_has() -> None:
    (pool,) = COMPOSE["networks"]["callflow"]["ipam"]["config"]
    assert COMPOSE["services"]["service"]["environment"]["CALLFLOW_TRUSTED_PROXIES"] == pool["subnet"]


def test_nginx_alone_can_be_reached_from_outside() -> None:
    assert [name for name, service in COMPOSE["services"].items() if "ports" in service] == ["nginx"]
