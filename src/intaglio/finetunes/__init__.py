"""Finetunes: who made which, what state it is in, and where its checked files lie.

Knows accounts, names, files and digests. Knows no HTTP and never looks at a tensor itself: `lora` does the checking.

    store             all that can be done with finetunes: what the API calls, and where to begin reading
      names, mixing   what a finetune may be called; what one request may name together
      demo            the finetunes that come with the package
    intake            an uploaded file's way in: joined, checked, verified, kept
      progress        how far the checks are that run
    holdings          rows and files change together, and what no row points to goes
      housekeeping    when that is looked for in the whole folder
    catalogue         the database, in terms of `records`
      tables, revisions, before_alembic       its tables, and how those of earlier versions become them
      read_rows, write_rows                   rows as records, records as rows
    files             the folders that hold the files
      incoming, opened_file, full_disk        on the way in, on the way out, and when there is no room
    data_lock, belonging                      who may change a folder's tables; which database is the folder's
"""

from __future__ import annotations

from intaglio.finetunes.records import Candidate, Check, Finetune, FinetuneState, FinetuneVersion, StoredFile
from intaglio.finetunes.store import AdapterStore
from intaglio.finetunes.upload import Verify

__all__ = ["AdapterStore", "Candidate", "Check", "Finetune", "FinetuneState", "FinetuneVersion", "StoredFile", "Verify"]
