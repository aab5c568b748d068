"""References to models of the hub as users write them, read into their parts.

hf:google/gemma-7b-it                                   safetensors of a repository, else its Q4_K_M GGUF
hf:google/gemma-7b-it@main                              at a branch, tag or commit
hf:bartowski/google_gemma-3-1b-it-GGUF:Q5_K_M           the GGUF file of a quantization, as llama.cpp's -hf has it
hf:bartowski/google_gemma-3-1b-it-GGUF/NAME.gguf        one GGUF file by its name, with its other parts
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from intaglio.errors import SettingsError

PREFIX = "hf:"
FORM = "hf:OWNER/REPO[:QUANTIZATION][@REVISION] or hf:OWNER/REPO/FILE.gguf[@REVISION]"

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_REFERENCE = re.compile(
    rf"(?P<repo>{_NAME}/{_NAME})"
    r"(?:/(?P<file>[^@:]+)|:(?P<quantization>[A-Za-z0-9_.-]{1,40}))?"
    r"(?:@(?P<revision>[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}))?"
)


@dataclass(frozen=True, slots=True)
class HubReference:
    """repo          OWNER/REPO
    revision      branch, tag or commit; None is the repository's default branch
    quantization  of a GGUF file, such as Q4_K_M; None: not asked for
    file          path of a .gguf file in the repository; None: not asked for
    """

    repo: str
    revision: str | None = None
    quantization: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        quantization = f":{self.quantization}" if self.quantization else ""
        file = f"/{self.file}" if self.file else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{self.repo}{file}{quantization}{revision}"


def is_hub_reference(source: str) -> bool:
    """Whether a model's source names the hub rather than a path."""
    return source.startswith(PREFIX)


def parse_hub_reference(source: str) -> HubReference:
    """Read a reference. Raises SettingsError with the form that is needed."""
    found = _REFERENCE.fullmatch(source.removeprefix(PREFIX))
    if found is None or ".." in source or "--" in found["repo"]:  # no repository has either in its name
        raise SettingsError(f"{source!r} does not name a model of the Hugging Face hub; {FORM} is needed")
    if found["file"] is not None and not found["file"].endswith(".gguf"):
        raise SettingsError(
            f"{source!r} names the file {found['file']}; a .gguf file can be named, or the whole repository: "
            f"{PREFIX}{found['repo']}"
        )
    return HubReference(found["repo"], found["revision"], found["quantization"], found["file"])
