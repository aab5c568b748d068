"""A real PostgreSQL server for the tests, in a temporary folder, on a unix socket.

PostgreSQL refuses to run as root. If the tests do, it runs as the user `postgres`, which Debian's package creates.
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
START_DEADLINE_S = 60


def server_programs() -> Path | None:
    """The folder of initdb and pg_ctl of the newest installed version; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


class PostgresqlServer:
    """One server process. It can be stopped and started again with its data."""

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
        self._run("pg_ctl", "start", "-w", "-t", str(START_DEADLINE_S), "-D", str(self._data), "-o", options, "-l", log)

    def stop(self) -> None:
        """Stop the server immediately, which breaks every connection."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self._data))

    def remove(self) -> None:
        shutil.rmtree(self._root)

    def new_database(self, encoding: str = "UTF8") -> str:
        """Create a database; return its URL for `database_url`."""
        self._num_databases += 1
        name = f"test{self._num_databases}"
        options = ["-h", str(self._root), "-U", SERVER_USER, "-E", encoding, "--locale=C", "-T", "template0"]
        self._run("createdb", *options, name)
        return f"postgresql+psycopg://{SERVER_USER}@/{name}?host={quote(str(self._root), safe='')}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", SERVER_USER, "--", *command]
        done = subprocess.run(
            command, cwd="/", check=False, capture_output=True, text=True, timeout=2 * START_DEADLINE_S
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")
