from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from intaglio import model_source
from intaglio.errors import ModelFormatError, SettingsError
from intaglio.model_source import local_model_path, model_sources, with_local_models
from intaglio.settings import DEFAULT_MODEL_ID, load_settings


def test_a_path_is_itself_and_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "gemma").mkdir()
    assert local_model_path("~/gemma", load_settings()) == tmp_path / "gemma"


def test_a_path_that_does_not_exist_is_refused_and_the_name_of_a_repository_with_its_reference() -> None:
    with pytest.raises(ModelFormatError, match=r"^/nowhere does not exist$"):
        local_model_path("/nowhere", load_settings())
    with pytest.raises(ModelFormatError, match=r"google/gemma-7b-it does not exist; .* give hf:google/gemma-7b-it$"):
        local_model_path("google/gemma-7b-it", load_settings())


def test_an_id_may_have_no_equals_sign_and_a_source_may_have_them() -> None:
    assert model_sources(["@a/b=/x=y", DEFAULT_MODEL_ID, "@a/c=hf:o/r:Q4_0@main"]) == {
        "@a/b": "/x=y", DEFAULT_MODEL_ID: DEFAULT_MODEL_ID, "@a/c": "hf:o/r:Q4_0@main",
    }  # fmt: skip
    with pytest.raises(SettingsError, match="given twice: hf:o/r and /x"):
        model_sources(["@a/b=hf:o/r", "@a/b=/x"])


def test_the_models_of_the_hub_become_paths_and_the_tokenizer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_source, "fetch_model", lambda reference, _progress: Path("/cache") / reference.repo)
    settings = load_settings(model=("@a/b=hf:o/r", "@a/c=/x", DEFAULT_MODEL_ID), tokenizer="hf:o/t")
    local = with_local_models(settings)
    assert local.model == ("@a/b=/cache/o/r", "@a/c=/x", DEFAULT_MODEL_ID)
    assert local.tokenizer == "/cache/o/t"
    assert with_local_models(load_settings()).model == ()


def test_the_bundled_model_may_be_served_under_another_id() -> None:
    settings = with_local_models(load_settings(model=[f"@cf/google/gemma-2b-it-lora={DEFAULT_MODEL_ID}"]))
    assert settings.model == (f"@cf/google/gemma-2b-it-lora={DEFAULT_MODEL_ID}",)
    assert with_local_models(load_settings(model=[DEFAULT_MODEL_ID])).model == (DEFAULT_MODEL_ID,)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (5, r"the model is 5; a folder, a \.gguf file, hf:OWNER/REPO or @intaglio/gemma-3-270m is needed$"),
        ("", r'the model is ""; a folder, .* is needed$'),
        ("nosuch", r"nosuch does not exist; a folder, .* is needed$"),
        ("@intaglio/gemma-3-270M", r"does not exist; did you mean @intaglio/gemma-3-270m\?$"),
    ],
)
def test_what_is_no_model_is_refused_with_what_is_needed_or_was_meant(source: Any, said: str) -> None:
    with pytest.raises((ModelFormatError, SettingsError), match=said):
        local_model_path(source, load_settings())
