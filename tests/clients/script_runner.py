"""Runs one client's example script in the client's own environment and reads what it printed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.clients import ENVIRONMENTS, NODE_BIN, NODE_FOLDER, NODE_FOLDERS, Client

DEADLINE_S = 280.0


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the functions of a script returned. `outcomes["chat"]` is a value, or raises AssertionError."""

    script: str
    content: Mapping[str, Mapping[str, Any]]

    def __getitem__(self, function: str) -> Any:
        outcome = self.content[function]
        if "error" in outcome:
            raise AssertionError(f"{self.script}: {function}() failed:\n{outcome['error']}")
        return outcome["value"]


def run_script(client: Client, variables: Mapping[str, str], home: Path) -> Outcomes:
    """Run the client's script with only `variables` and the client's own in its environment.

    home is an empty folder, so that the user's configuration has no effect. The https proxy does not exist, so a client
    that connects to its vendor fails. The server under test is reached by http.
    """
    environment = {
        "PATH": f"{NODE_FOLDER / 'node_modules' / '.bin'}:{NODE_BIN}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "NODE_USE_ENV_PROXY": "1",
        **variables,
        **client.variables,
    }
    done = subprocess.run(
        _command(client),
        capture_output=True, text=True, timeout=DEADLINE_S, env=environment, cwd=home, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{client.script} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return Outcomes(client.script, json.loads(lines[-1]))


def _command(client: Client) -> list[str]:
    script = client.folder / client.script
    if script.suffix == ".sh":
        return ["/bin/bash", str(script)]
    node = client.environment in NODE_FOLDERS
    program = NODE_BIN / "node" if node else ENVIRONMENTS / client.environment / "bin" / "python"
    assert program.exists(), f"{program} is missing: `make test-clients` installs it"
    if script.suffix == ".yaml":
        return [str(program), str(client.folder / "evaluate.mjs"), str(script)]
    return [str(program), str(script)]
