"""What the finetune routes send: one declaration per shape, from which the response and the OpenAPI document are made.

A field that is UNSET is left out. Fields are written in the order of their declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from intaglio.api.http.wire import Count, NotNegative, Time, time_text
from intaglio.finetunes import FinetuneState, FinetuneVersion, StoredFile, records
from intaglio.finetunes.upload import STORING, VERIFYING
from intaglio.lora.peft.reader import CONFIG_FILE, WEIGHTS_FILE, ReadStep
from intaglio.request import Verification

BUCKET_NAME = "intaglio-finetunes"  # the service names a storage bucket here; clients only pass it on

_STATES = [state.value for state in FinetuneState]
_STEPS = [*(step.value for step in ReadStep), VERIFYING, STORING]

FileName = Annotated[str, Meta(extra_json_schema={"enum": [CONFIG_FILE, WEIGHTS_FILE]})]
State = Annotated[str, Meta(description="only a ready finetune serves requests", extra_json_schema={"enum": _STATES})]
Step = Annotated[str, Meta(extra_json_schema={"enum": _STEPS})]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Version = Annotated[Count, Meta(description="the number of the current version; 0 before the first")]

_T = TypeVar("_T")


class FinetuneFile(Struct, frozen=True):
    file_name: FileName
    size: Count
    sha256: Sha256
    uploaded_at: Time


class FinetuneCheck(Struct, frozen=True):
    """How far the check of an upload is."""

    file_name: FileName
    step: Step
    step_since: Time
    started_at: Time


class FinetuneVerification(Struct, frozen=True):
    """The result of running an adapter beside the reference."""

    verdict: Annotated[Literal["verified"], Meta(description="an adapter that is not verified is refused")]
    modules: Annotated[Count, Meta(description="modules of the base that the adapter changes")]
    rank: Annotated[Count, Meta(description="the largest of their ranks")]
    largest_logit_change: Annotated[NotNegative, Meta(description="the largest change of one logit by the adapter")]
    mean_logit_change: Annotated[NotNegative, Meta(description="the mean change over all logits of the text")]
    agreement: Annotated[float, Meta(description="with the reference arithmetic on the files' numbers; 1 is exact")]
    canary_tokens: Annotated[Count, Meta(description="length of the text that it was run on")]
    seconds: NotNegative
    scalable: Annotated[bool, Meta(description="a request may scale it and mix it with others")]
    notes: Annotated[
        list[str], Meta(description="what of its files is not used, and which modules are held with more bits")
    ]


class PendingVersion(Struct, frozen=True, kw_only=True):
    """An upload that will replace the current version."""

    version: Count
    state: State
    files: list[FinetuneFile]
    reason: str | UnsetType = UNSET
    missing_files: list[FileName]
    check: FinetuneCheck | UnsetType = UNSET


class EarlierVersion(Struct, frozen=True):
    version: Count
    digest: Sha256


class Finetune(Struct, frozen=True, kw_only=True):
    """A finetune in a list: the service's fields, then ours."""

    id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
    account_id: str
    name: str
    model: Annotated[str, Meta(description="the base that it belongs to")]
    description: str
    public: Annotated[bool, Meta(description="other accounts can use it by its id")]
    created_at: Time
    modified_at: Time
    state: State
    version: Version
    verified: Annotated[bool, Meta(description="the current version has a verification")]
    reason: Annotated[str, Meta(description="why the last upload was refused")] | UnsetType = UNSET
    digest: Annotated[Sha256, Meta(description="the identity of the current version's adapter")] | UnsetType = UNSET
    example_prompt: str | UnsetType = UNSET
    suggested: records.SuggestedUse | UnsetType = UNSET


class FinetuneDetail(Finetune, frozen=True, kw_only=True):
    """A finetune that is read: also its files, its verification, the earlier versions, and how far an upload is.

    The progress of a first upload is shown here, that of a replacement in `pending`, beside the current files.
    """

    files: list[FinetuneFile]
    verification: FinetuneVerification | None
    earlier: list[EarlierVersion]
    pending: PendingVersion | UnsetType = UNSET
    missing_files: list[FileName] | UnsetType = UNSET
    check: FinetuneCheck | UnsetType = UNSET


class FinetuneAsset(Struct, frozen=True, kw_only=True):
    """The result of an upload: the fields that older SDKs read, and the state of the finetune."""

    id: Annotated[Sha256, Meta(description="the SHA-256 of the file")]
    bucket_name: str
    created_at: Time
    file_name: FileName
    finetune_id: str
    modified_at: Time
    state: State
    version: Version
    pending: PendingVersion | UnsetType = UNSET
    verification: FinetuneVerification | UnsetType | None = UNSET


class DeletedFinetune(Struct, frozen=True):
    id: str
    name: str
    model: str
    deleted: Literal[True]


SHAPES = (
    Finetune, FinetuneDetail, FinetuneFile, FinetuneCheck, PendingVersion, FinetuneAsset, EarlierVersion,
    FinetuneVerification, DeletedFinetune,
)  # fmt: skip


def finetune_summary(finetune: records.Finetune) -> Finetune:
    """A finetune for a list."""
    return Finetune(**_summary_fields(finetune))


def finetune_detail(finetune: records.Finetune) -> FinetuneDetail:
    """A finetune that is read."""
    first_upload = finetune.candidate if finetune.pending is None else None
    return FinetuneDetail(
        **_summary_fields(finetune),
        files=_files(finetune.files),
        verification=_verification_of(finetune.current),
        earlier=[EarlierVersion(one.number, one.digest) for one in finetune.earlier],
        pending=UNSET if finetune.pending is None else _pending_version(finetune.pending),
        missing_files=UNSET if first_upload is None else list(first_upload.missing_files),
        check=UNSET if first_upload is None else _check(first_upload),
    )


def uploaded_asset(finetune: records.Finetune, file_name: str, sha256: str) -> FinetuneAsset:
    """The result of the upload of one file."""
    is_current = finetune.pending is None and finetune.current is not None
    return FinetuneAsset(
        id=sha256,
        bucket_name=BUCKET_NAME,
        created_at=time_text(finetune.modified_at),
        file_name=file_name,
        finetune_id=finetune.id,
        modified_at=time_text(finetune.modified_at),
        state=finetune.state.value,
        version=_version_number(finetune),
        pending=UNSET if finetune.pending is None else _pending_version(finetune.pending),
        verification=_verification_of(finetune.current) if is_current else UNSET,
    )


def deleted_finetune(finetune: records.Finetune) -> DeletedFinetune:
    return DeletedFinetune(finetune.id, finetune.name, finetune.model, True)


def finetune_verification(verification: Verification) -> FinetuneVerification:
    return FinetuneVerification(
        verdict="verified",
        modules=verification.num_modules,
        rank=verification.rank,
        largest_logit_change=verification.largest_change,
        mean_logit_change=verification.mean_change,
        agreement=verification.agreement,
        canary_tokens=verification.num_tokens,
        seconds=verification.seconds,
        scalable=verification.scalable,
        notes=list(verification.notes),
    )


def _summary_fields(finetune: records.Finetune) -> dict[str, Any]:
    return {
        "id": finetune.id,
        "account_id": finetune.account,
        "name": finetune.name,
        "model": finetune.model,
        "description": finetune.description,
        "public": finetune.public,
        "created_at": time_text(finetune.created_at),
        "modified_at": time_text(finetune.modified_at),
        "state": finetune.state.value,
        "version": _version_number(finetune),
        "verified": finetune.current is not None and finetune.current.verification is not None,
        "reason": _or_unset(finetune.reason),
        "digest": _or_unset(finetune.digest),
        "example_prompt": _or_unset(finetune.example_prompt),
        "suggested": _or_unset(finetune.suggested),
    }


def _version_number(finetune: records.Finetune) -> int:
    return finetune.current.number if finetune.current is not None else 0


def _verification_of(version: FinetuneVersion | None) -> FinetuneVerification | None:
    """None without a version, or for one that has no stored verification."""
    return None if version is None or version.verification is None else finetune_verification(version.verification)


def _pending_version(candidate: records.Candidate) -> PendingVersion:
    return PendingVersion(
        version=candidate.number,
        state=candidate.state.value,
        files=_files(candidate.files),
        reason=_or_unset(candidate.reason),
        missing_files=list(candidate.missing_files),
        check=_check(candidate),
    )


def _check(candidate: records.Candidate) -> FinetuneCheck | UnsetType:
    check = candidate.check
    if check is None:
        return UNSET
    return FinetuneCheck(check.file_name, check.step, time_text(check.step_since), time_text(check.started_at))


def _files(files: Mapping[str, StoredFile]) -> list[FinetuneFile]:
    return [
        FinetuneFile(name, stored.size_bytes, stored.sha256, time_text(stored.uploaded_at))
        for name, stored in sorted(files.items())
    ]


def _or_unset(value: _T | None) -> _T | UnsetType:
    return UNSET if value is None else value
