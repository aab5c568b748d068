from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from intaglio.files.data_folder import make_data_folder

IS_ROOT = os.geteuid() == 0
# Root may write everywhere, unless it gives these up.
GIVEN_UP = "-dac_override,-dac_read_search,-fowner"
AS_A_USER = ["setpriv", f"--bounding-set={GIVEN_UP}", f"--inh-caps={GIVEN_UP}"] if IS_ROOT else []
SCRIPT = (
    "import sys; from pathlib import Path; from intaglio.errors import DataFolderError\n"
    "from intaglio.files.data_folder import make_data_folder\n"
    "try: make_data_folder(Path(sys.argv[1]))\n"
    "except DataFolderError as error: print(error)"
)
ANOTHER = "name another one with --data-dir or INTAGLIO_DATA_DIR"

needs_rights_to_lose = pytest.mark.skipif(
    IS_ROOT and shutil.which("setpriv") is None, reason="run by root, without setpriv"
)
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root may give a folder to another user")


def refusal(folder: Path) -> str:
    command = [*AS_A_USER, sys.executable, "-c", SCRIPT, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@needs_rights_to_lose
def test_a_read_only_folder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o555)
    assert refusal(folder) == f"data_dir {folder} cannot be used: Permission denied; {ANOTHER}"
    assert refusal(folder / "new") == f"data_dir {folder / 'new'} cannot be used: Permission denied; {ANOTHER}"


@needs_rights_to_lose
@needs_root
@pytest.mark.parametrize("what", ["the folder", "a file"])
def test_what_belongs_to_another_user_is_named_with_both_users(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "finetunes.db").write_bytes(b"rows")
    foreign = folder if what == "the folder" else folder / "finetunes.db"
    os.chown(foreign, 65534, 65534)
    reason = "Permission denied" if what == "the folder" else "finetunes.db cannot be written"
    assert refusal(folder) == (
        f"data_dir {folder} cannot be used: {reason}; {foreign} belongs to uid 65534 and this server runs as uid 0: "
        f"chown it to that, or {ANOTHER}"
    )
    assert (folder / "finetunes.db").read_bytes() == b"rows"


def test_a_folder_that_can_be_used_is_left_as_it_is(tmp_path: Path) -> None:
    make_data_folder(tmp_path / "new" / "data")
    (tmp_path / "new" / "data" / "finetunes.db").write_bytes(b"rows")
    make_data_folder(tmp_path / "new" / "data")
    assert [path.name for path in (tmp_path / "new" / "data").iterdir()] == ["finetunes.db"]
    assert (tmp_path / "new" / "data").stat().st_mode & 0o777 == 0o700
