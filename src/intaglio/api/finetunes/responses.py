"""Finetunes as JSON: short in lists, whole when one is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from intaglio.finetunes import Candidate, Check, Finetune, FinetuneVersion, StoredFile
from intaglio.request import Verification

BUCKET_NAME = "intaglio-finetunes"  # the service names a storage bucket here; clients only hand it on


def finetune_json(finetune: Finetune) -> dict[str, Any]:
    """A finetune as the lists have it, and beyond that its state, version, digest, why it was refused, an example.

    version  number of the one that answers; 0 before the first
    verified      that one was run beside its reference when it came; those that an earlier version took in were not
    """
    current = finetune.current
    content = {
        "id": finetune.id,
        "account_id": finetune.account,
        "name": finetune.name,
        "model": finetune.model,
        "description": finetune.description,
        "public": finetune.public,
        "created_at": _time(finetune.created_at),
        "modified_at": _time(finetune.modified_at),
        "state": finetune.state.value,
        "version": _number(finetune),
        "verified": current is not None and current.verification is not None,
    }
    return content | _given(reason=finetune.reason, digest=finetune.digest, example_prompt=finetune.example_prompt)


def finetune_detail(finetune: Finetune) -> dict[str, Any]:
    """The same with its files, its verification, the versions to which it can be rolled back, and how far an upload is.

    A finetune that does not answer yet says itself what it lacks and how its check goes on; one that does has all this
    in `pending`, beside the files of the version that answers.
    """
    content = finetune_json(finetune) | {
        "files": _files_json(finetune.files),
        "verification": _verification_of(finetune.current),
        "earlier": [{"version": one.number, "digest": one.digest} for one in finetune.earlier],
    }
    if finetune.pending is not None:
        return content | {"pending": _candidate_json(finetune.pending)}
    return content | (_progress_json(finetune.candidate) if finetune.candidate is not None else {})


def asset_json(finetune: Finetune, file_name: str, sha256: str) -> dict[str, Any]:
    """The upload's result: what older SDKs unwrap, and what became of the finetune."""
    content = {
        "id": sha256,
        "bucket_name": BUCKET_NAME,
        "created_at": _time(finetune.modified_at),
        "file_name": file_name,
        "finetune_id": finetune.id,
        "modified_at": _time(finetune.modified_at),
        "state": finetune.state.value,
        "version": _number(finetune),
    }
    if finetune.pending is not None:
        return content | {"pending": _candidate_json(finetune.pending)}
    return content | ({"verification": _verification_of(finetune.current)} if finetune.current is not None else {})


def deleted_json(finetune: Finetune) -> dict[str, Any]:
    """The result of a delete: what is gone."""
    return {"id": finetune.id, "name": finetune.name, "model": finetune.model, "deleted": True}


def _number(finetune: Finetune) -> int:
    return finetune.current.number if finetune.current is not None else 0


def _verification_of(version: FinetuneVersion | None) -> dict[str, Any] | None:
    """None where there is no version, or one that was taken in without a verification."""
    return None if version is None or version.verification is None else verification_json(version.verification)


def verification_json(verification: Verification) -> dict[str, Any]:
    """What running an adapter showed."""
    return {
        "verdict": "verified",
        "modules": verification.num_modules,
        "rank": verification.rank,
        "largest_logit_change": verification.largest_change,
        "mean_logit_change": verification.mean_change,
        "agreement": verification.agreement,
        "canary_tokens": verification.num_tokens,
        "seconds": verification.seconds,
        "scalable": verification.scalable,
    }


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    """A replacement on its way: the version that it would be, and where it stands."""
    content = {
        "version": candidate.number,
        "state": candidate.state.value,
        "files": _files_json(candidate.files),
    }
    return content | _given(reason=candidate.reason) | _progress_json(candidate)


def _progress_json(candidate: Candidate) -> dict[str, Any]:
    missing = {"missing_files": list(candidate.missing_files)}
    return missing | _given(check=_check_json(candidate.check) if candidate.check is not None else None)


def _check_json(check: Check) -> dict[str, Any]:
    return {
        "file_name": check.file_name,
        "step": check.step,
        "step_since": _time(check.step_since),
        "started_at": _time(check.started_at),
    }


def _files_json(files: Mapping[str, StoredFile]) -> Sequence[Mapping[str, Any]]:
    return [
        {
            "file_name": name,
            "size": stored.size_bytes,
            "sha256": stored.sha256,
            "uploaded_at": _time(stored.uploaded_at),
        }
        for name, stored in sorted(files.items())
    ]


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
