"""A real PostgreSQL with pgvector on a unix socket in a folder of its own.

The programs come from the PyPI package pgserver: Debian 12 has PostgreSQL 15 and no pgvector for it. `test_postgres.py` starts it.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

_SECONDS = 60
# PostgreSQL refuses to run as root.
_OTHER_USER = "nobody"


class PostgresServer:
    """Start, stop and start again; the data stay."""

    def __init__(self, folder: Path) -> None:
        """Makes the database. The programs are copied, because another user may not be let into this environment."""
        found = importlib.util.find_spec("pgserver")
        assert found is not None
        assert found.origin is not None
        self._folder = folder
        self._bin = folder / "pgserver" / "pginstall" / "bin"
        shutil.copytree(Path(found.origin).parent / "pginstall", folder / "pgserver" / "pginstall")
        libraries = Path(found.origin).parents[1] / "pgserver.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, folder / "pgserver.libs")
        self._user = _OTHER_USER if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
        self._run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "postgres", "--no-sync")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        return f"host={self._folder} user=postgres dbname=postgres"

    def start(self) -> None:
        command = [str(self._bin / "postgres"), "-D", str(self._folder / "data"), "-k", str(self._folder), "-h", "", "-c", "fsync=off"]
        self._process = subprocess.Popen(command, user=self._user, cwd=self._folder, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _SECONDS
        ready = [str(self._bin / "pg_isready"), "-q", "-h", str(self._folder)]
        while subprocess.run(ready, check=False, timeout=_SECONDS).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start in {self._folder}")
            time.sleep(0.1)

    def stop(self) -> None:
        """At once, as when its machine is lost."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_SECONDS)
            self._process = None

    def execute(self, statement: str) -> str:
        return self._run("psql", "-h", str(self._folder), "-U", "postgres", "-At", "-c", statement)

    def _run(self, program: str, *arguments: str) -> str:
        command = [str(self._bin / program), *arguments]
        done = subprocess.run(command, user=self._user, cwd=self._folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")
        return done.stdout.strip()
