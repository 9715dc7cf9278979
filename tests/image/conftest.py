"""The image, built from the Dockerfile as it is, on a base image that is made here."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from images import Buildah, Image, make_base


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    for program, package in (("buildah", "buildah"), ("debootstrap", "debootstrap")):
        if shutil.which(program) is None:
            pytest.fail(f"These tests need {program}; on Debian, install the package {package}.")
    with tempfile.TemporaryDirectory(prefix="callflow-image-", dir="/var/tmp") as folder:
        buildah = Buildah(Path(folder))
        base = make_base(buildah, Path(folder) / "base")
        buildah(
            "build", "--isolation", "chroot", "--pull-never", "--format", "docker", "--tag", "callflow-service", "."
        )
        container = buildah("from", "--pull-never", "localhost/callflow-service")
        config = json.loads(buildah("inspect", "--type", "image", "localhost/callflow-service"))["Docker"]["config"]
        yield Image(config, Path(buildah("mount", container)), base)
        buildah("umount", "--all")
