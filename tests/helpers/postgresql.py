"""A real PostgreSQL for the tests, from Debian's packages: its own folder, a unix socket, gone afterwards.

PostgreSQL refuses to run as root. Then it runs as the user `postgres`, whom Debian's package makes.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

SERVER_USER = "postgres"
START_S = 60


def server_programs() -> Path | None:
    """Folder of initdb and pg_ctl, of the newest version installed; None without any."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


class PostgresqlServer:
    """One server process. `stop` and `start` take it away and bring it back with its data."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._root = Path(tempfile.mkdtemp(prefix="intaglio-pg-"))
        self._data = self._root / "data"
        self._num_databases = 0
        if os.getuid() == 0:
            user = pwd.getpwnam(SERVER_USER)
            os.chown(self._root, user.pw_uid, user.pw_gid)
        self._run("initdb", "-D", str(self._data), "-U", SERVER_USER, "--auth=trust", "--no-sync", "-E", "UTF8")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c fsync=off -c full_page_writes=off -k {self._root}"
        log = str(self._root / "log")
        self._run("pg_ctl", "start", "-w", "-t", str(START_S), "-D", str(self._data), "-o", options, "-l", log)

    def stop(self) -> None:
        """Every connection breaks at once."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self._data))

    def remove(self) -> None:
        shutil.rmtree(self._root)

    def new_database(self) -> str:
        """URL of an empty database, as `database_url` has it."""
        self._num_databases += 1
        name = f"test{self._num_databases}"
        self._run("createdb", "-h", str(self._root), "-U", SERVER_USER, name)
        return f"postgresql+psycopg://{SERVER_USER}@/{name}?host={quote(str(self._root), safe='')}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", SERVER_USER, "--", *command]
        done = subprocess.run(command, cwd="/", check=False, capture_output=True, text=True, timeout=2 * START_S)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")
