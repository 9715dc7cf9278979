"""Build images with buildah, and run commands in them as a container would."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TREE = Path(__file__).parents[2]

# The Debian whose Python is the one of the base image that the Dockerfile names.
SUITE = "trixie"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
VENV = "/usr/local/base"


@dataclass(frozen=True, slots=True)
class Buildah:
    """Debian's buildah, with a storage of its own below a folder."""

    folder: Path

    def __call__(self, *arguments: str) -> str:
        storage = ("--root", f"{self.folder}/storage", "--runroot", f"{self.folder}/run", "--storage-driver", "vfs")
        done = subprocess.run(["buildah", *storage, *arguments], capture_output=True, text=True, check=False, cwd=TREE)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Image:
    """The built image: what it says of itself, its files, and those of its base."""

    config: dict[str, Any]
    files: Path
    base: Path

    @property
    def environment(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.config["Env"])

    def start(self, *command: str, **settings: str) -> subprocess.Popen[str]:
        """Run a command in it as a container with a read-only root would: as its user, with a /tmp that is empty."""
        script = """mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && mount -t tmpfs tmpfs "$0/tmp" &&
            mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot --userspec="$1" "$0" "${@:2}" """
        apart = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", script)
        return subprocess.Popen(
            [*apart, self.files, self.config["User"], *command],
            env=self.environment | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, **settings: str) -> tuple[int, str]:
        """The status that a command in it ends with, and what it said."""
        process = self.start(*command, **settings)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said


def make_base(buildah: Buildah, files: Path) -> Path:
    """An image under the name in FROM, with a Python as the real one has it: first on the PATH, and pip may install."""
    names = set(re.findall(r"^FROM (\S+)", (TREE / "Dockerfile").read_text(), re.MULTILINE))
    assert len(names) == 1
    command = ("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(files))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    # Whoever builds behind a proxy of his own has its certificate there.
    shutil.copy(CERTIFICATES, f"{files}{CERTIFICATES}")
    subprocess.run(["chroot", str(files), "python3", "-m", "venv", VENV], check=True)
    container = buildah("from", "scratch")
    buildah("add", container, str(files), "/")
    path = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    buildah("config", "--env", f"PATH={path}", "--env", f"PIP_CERT={CERTIFICATES}", container)
    buildah("commit", "--rm", container, f"docker.io/library/{names.pop()}")
    return files
