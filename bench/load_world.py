"""Load a world file of many devices, and tell how long it took and the most memory that it needed.

    load_world.py [DEVICES]

Not a part of run.py: a million devices take minutes.
"""

import asyncio
import os
import subprocess
import sys
import time
from typing import Final

import world
from callflow_service.storage.embedded import start_embedded
from callflow_service.storage.migrating import migrate

_HEAD: Final = "accounts:\n  - {id: 1, username: admin, role: admin, api_key: benchmark-admin-secret}\ndevices:\n"
_DEVICE: Final = "  - {{id: {0}, technology: SIP, name: '{0}', owner: admin, ring_seconds: 30}}\n"


def main() -> None:
    """Write the file, load it, and print the numbers; the progress bar is the loader's own."""
    devices = int(sys.argv[1]) if sys.argv[1:] else 1_000_000
    folder = world.folder()
    file = folder / "world.yaml"
    with file.open("w") as lines:
        lines.write(_HEAD)
        lines.writelines(map(_DEVICE.format, range(1, devices + 1)))
    url = asyncio.run(world.create(start_embedded(folder), devices=devices))
    migrate(url)
    started = time.perf_counter()
    loading = subprocess.Popen(
        (sys.executable, "-m", "callflow_service.cli", "load", str(file)),
        env=os.environ | {"CALLFLOW_DATABASE_URL": url.get_secret_value(), "CALLFLOW_DATA_DIR": str(folder)},
    )
    _, status, used = os.wait4(loading.pid, 0)
    seconds = time.perf_counter() - started
    size = file.stat().st_size / 1e6
    if status:
        sys.exit("bench: the load failed")
    print(
        f"{devices:,} devices, {size:.0f} MB: {seconds:.0f} s, at most {used.ru_maxrss * 1024 / 1e6:.0f} MB of memory"
    )


if __name__ == "__main__":
    main()
