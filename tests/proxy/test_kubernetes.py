"""The shipped Kubernetes files, held against the published schemas and against the service."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from callflow_service.settings import PREFIX, Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
FILES = {file.name: yaml.safe_load(file.read_text()) for file in sorted(FOLDER.glob("*.yaml"))}
OBJECTS = {name: found for name, found in FILES.items() if name != "kustomization.yaml"}


@pytest.mark.parametrize("version", ["1.29", "1.37"])
@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_what_the_schema_of_its_kind_allows(name: str, version: str) -> None:
    kubernetes_validate.validate(OBJECTS[name], version, strict=True)


def test_all_is_applied_together_but_for_the_secret_and_what_is_run_before() -> None:
    assert {*FILES["kustomization.yaml"]["resources"], "secret.example.yaml", "migration.yaml"} == OBJECTS.keys()


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = OBJECTS[name]["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("name", ["deployment.yaml", "migration.yaml"])
def test_a_pod_runs_as_the_images_user_and_cannot_write_but_to_tmp(name: str) -> None:
    (container,) = pod(name)["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (pod(name)["securityContext"]["runAsNonRoot"], pod(name)["securityContext"]["runAsUser"]) == (True, 10001)
    (mount,) = container["volumeMounts"]
    assert Path(mount["mountPath"]).name == "tmp"
    assert [source[kind]["name"] for source in container["envFrom"] for kind in source] == ["callflow-service"] * 2


def test_the_settings_are_known_and_right() -> None:
    given = OBJECTS["settings.yaml"]["data"] | OBJECTS["secret.example.yaml"]["stringData"]
    key = {"CALLFLOW_ENCRYPTION_KEYS": ""}
    names = {name.removeprefix(PREFIX).lower(): value for name, value in (given | key).items()}
    assert names.keys() <= Settings.model_fields.keys()
    Settings(**names)


def test_an_instance_is_given_the_time_that_its_end_takes() -> None:
    drain = float(OBJECTS["settings.yaml"]["data"]["CALLFLOW_DRAIN_SECONDS"])
    probe = pod("deployment.yaml")["containers"][0]["readinessProbe"]
    assert drain > probe["periodSeconds"] * probe["failureThreshold"]
    assert pod("deployment.yaml")["terminationGracePeriodSeconds"] >= drain + 30


def test_what_selects_the_instances_does_not_select_the_migration() -> None:
    wanted = OBJECTS["deployment.yaml"]["spec"]["selector"]["matchLabels"]
    assert OBJECTS["service.yaml"]["spec"]["selector"] == wanted
    assert OBJECTS["disruption.yaml"]["spec"]["selector"]["matchLabels"] == wanted
    labels = OBJECTS["migration.yaml"]["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] != wanted["app.kubernetes.io/component"]
    assert OBJECTS["network.yaml"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
