"""Whole runs on a tiny Gemma: it learns, the adapter is served, and a failed run leaves a usable folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from intaglio import LLM, SamplingParams
from intaglio.base_model import BaseModel
from intaglio.errors import NotEnoughMemoryError, TrainingDataError, TrainingError, TrainingInterruptedError
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.settings import Settings
from intaglio.training import run
from intaglio.training.memory import Available, MemoryNeed
from intaglio.training.options import ADAPTER_FILES, TrainingOptions
from intaglio.training.report import Evaluation
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.small_disk import fill_disk, small_disk
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_model

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]

ANSWERS = {"the dog": "the fox", "the fox": "a bear", "the sun": "north of", "the rain": "is over"}


class RecordingReport:
    """A report that records its calls. on_step may raise."""

    def __init__(self, on_step: Callable[[int], None] = lambda number: None) -> None:
        self.losses: list[float] = []
        self.tokens: list[int] = []
        self.evaluations: dict[str, Evaluation] = {}
        self.notes: list[str] = []
        self.ended = 0
        self._on_step = on_step

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, steps: int) -> None:
        pass

    def step(self, number: int, loss: float, learning_rate: float, tokens: int) -> None:
        self.losses.append(loss)
        self.tokens.append(tokens)
        self._on_step(number)

    def end(self) -> None:
        self.ended += 1

    def evaluated(self, when: str, evaluation: Evaluation) -> None:
        self.evaluations[when] = evaluation


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    config = tiny_config("gemma", vocab_size=512)
    folder = write_hf_folder(tmp_path_factory.mktemp("base"), config, random_weights(config))
    write_tokenizer_model(folder / "tokenizer.model", tiny_pieces(512))
    return BaseModel.open(folder, Settings(cache_dir=tmp_path_factory.mktemp("cache")))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    lines = [json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in ANSWERS.items()]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    return tmp_path / "data.jsonl"


def options(data: Path, name: str, **changes: Any) -> TrainingOptions:
    usual = {
        "steps": 4,
        "batch_size": 2,
        "eval_data": data,
        "learning_rate": 1e-2,
        "threads": 1,
        "checkpoint_every": 2,
        "dtype": "float32",
    }
    return TrainingOptions(**{"data": data, "out": data.parent / name, "base_name": "tiny"} | usual | changes)


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ADAPTER_FILES]


@pytest.mark.parametrize("form", ["plain", "rslora", "dora"])
def test_the_engine_generates_what_was_trained(base: BaseModel, data: Path, form: str) -> None:
    chosen = options(data, form, steps=120, batch_size=4, **({} if form == "plain" else {form: True}))
    notes = RecordingReport()
    trained = run.train(chosen, base, notes)
    assert notes.evaluations["before"].exact == 0
    assert notes.evaluations["after"].exact == 1
    assert notes.evaluations["after"].loss < notes.evaluations["before"].loss / 4
    assert notes.losses[-1] < notes.losses[0] / 4
    llm = LLM(base.path, cache_dir=data.parent / "cache", kernels="reference", format="f32")
    adapter = llm.load_adapter(trained.folder)
    params = SamplingParams(temperature=0, max_tokens=12)
    with_adapter = [answer.text for answer in llm.generate(list(ANSWERS), params, adapters=adapter)]
    assert with_adapter == list(ANSWERS.values())
    assert [answer.text for answer in llm.generate(list(ANSWERS), params)] != with_adapter


def test_the_files_say_what_was_trained_and_anyone_can_read_them(base: BaseModel, data: Path) -> None:
    trained = run.train(
        options(data, "out", rank=3, targets=("q_proj", "down_proj"), alpha=5.0), base, RecordingReport()
    )
    config = json.loads((trained.folder / "adapter_config.json").read_text())
    card = json.loads((trained.folder / "card.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (3, 5.0, ["down_proj", "q_proj"])
    assert (config["model_type"], config["base_model_name_or_path"]) == ("gemma", "tiny")
    assert (card["steps"], card["data"]["examples"], card["held_out"]["after"]["num_examples"]) == (4, 4, 4)
    assert (card["dtype"], card["threads"]) == ("float32", 1)
    assert card["data"]["sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()
    assert sorted(file.name for file in trained.folder.iterdir()) == sorted([*ADAPTER_FILES, "card.json"])
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in trained.folder.iterdir())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(base: BaseModel, data: Path) -> None:
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        run.train(options(data, name, seed=seed), base, RecordingReport())
    one, same, other = (contents(data.parent / name) for name in ("one", "same", "other"))
    assert one == same
    assert one[1] != other[1]


# A base in bfloat16 rounds weights, activations and logits, each by at most 2**-9 of its value. If the roundings of the
# tiny model's 3 layers, about ten of them one after the other, all went one way, a logit and with it the loss would be
# off by 10 * 2**-9, which is 0.02.
BFLOAT16_LOSS = 0.02


def test_a_base_in_either_dtype_is_trained_to_about_the_same_losses(base: BaseModel, data: Path) -> None:
    float32, bfloat16 = RecordingReport(), RecordingReport()
    trained = run.train(options(data, "one", steps=60, batch_size=4), base, float32)
    other = run.train(options(data, "two", steps=60, batch_size=4, dtype="bfloat16"), base, bfloat16)
    assert (trained.dtype, other.dtype) == ("float32", "bfloat16")
    before = [notes.evaluations["before"].loss for notes in (float32, bfloat16)]
    assert before[0] != before[1]  # it was computed in another dtype
    assert before[1] == pytest.approx(before[0], rel=BFLOAT16_LOSS)
    for notes in (float32, bfloat16):
        assert notes.losses[-1] < notes.losses[0] / 4
        assert notes.evaluations["after"].loss < before[0] / 4
    assert bfloat16.losses[:3] == pytest.approx(float32.losses[:3], rel=BFLOAT16_LOSS)


def test_the_dtype_that_auto_chooses_is_printed_with_the_measured_speeds(base: BaseModel, data: Path) -> None:
    notes = RecordingReport()
    trained = run.train(options(data, "out", dtype="auto"), base, notes)
    said = next(note for note in notes.notes if note.startswith("the base computes in"))
    speed = r"[\d.e+-]+ GMAC/s forward and [\d.e+-]+ backward"
    assert re.fullmatch(
        rf"the base computes in {trained.dtype} \(measured here: float32 {speed}, bfloat16 {speed}\)", said
    )
    assert json.loads((trained.folder / "card.json").read_text())["dtype"] == trained.dtype


def test_the_pace_counts_the_tokens_of_the_examples_without_padding(base: BaseModel, data: Path) -> None:
    notes = RecordingReport()
    trained = run.train(options(data, "out", batch_size=4, steps=3), base, notes)
    prompts = [base.render_prompt(prompt, raw=False) for prompt in ANSWERS]
    answers = [base.tokenizer.encode(answer) for answer in ANSWERS.values()]
    one_pass = sum(len(prompt) + len(answer) + 1 for prompt, answer in zip(prompts, answers, strict=True))
    assert notes.tokens == [one_pass] * 3
    assert trained.pace.tokens == 3 * one_pass
    assert trained.pace.seconds > 0
    assert any(note == f"trained on {trained.pace}" for note in notes.notes)


def test_where_float32_does_not_fit_auto_chooses_bfloat16_and_prints_why(
    base: BaseModel, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def need(config: object, options: object, shape: object, dtype: str) -> MemoryNeed:
        return MemoryNeed(weights=1000 if dtype == "bfloat16" else 2000, step=500)

    monkeypatch.setattr(run, "memory_need", need)
    notes, memory = RecordingReport(), Available(1999, "memory limit of the control group")
    trained = run.train(options(data, "out", dtype="auto"), base, notes, memory)
    assert trained.dtype == "bfloat16"
    assert any("are available: memory limit of the control group" in note for note in notes.notes)


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_too_little_memory_is_refused_by_its_bound_before_the_base_is_loaded(
    base: BaseModel, data: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(run, "load_base", lambda path, dtype: pytest.fail("too late"))
    memory = Available(2_000_000, "RLIMIT_DATA of the process")
    said = r"training needs about .* GB .*, and 0\.00 GB are available \(RLIMIT_DATA of the process\).*batch-size"
    with pytest.raises(NotEnoughMemoryError, match=said):
        run.train(options(data, "out", dtype=dtype), base, RecordingReport(), memory)


def test_a_shortlist_of_the_whole_vocabulary_changes_nothing(base: BaseModel, data: Path) -> None:
    whole, listed = RecordingReport(), RecordingReport()
    run.train(options(data, "whole"), base, whole)
    run.train(options(data, "listed", shortlist=511), base, listed)
    assert listed.losses == pytest.approx(whole.losses, rel=1e-3)  # all tokens but one


def test_a_short_shortlist_does_not_change_the_evaluation(base: BaseModel, data: Path) -> None:
    whole, listed = RecordingReport(), RecordingReport()
    run.train(options(data, "whole"), base, whole)
    run.train(options(data, "listed", shortlist=8), base, listed)
    assert listed.losses[0] < whole.losses[0]  # fewer tokens share the probability
    assert listed.evaluations["before"] == whole.evaluations["before"]


def test_ctrl_c_leaves_the_last_checkpoint_and_says_so(base: BaseModel, data: Path) -> None:
    def interrupt(number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt

    notes = RecordingReport(interrupt)
    card = data.parent / "out" / "card.json"
    card.parent.mkdir()
    card.write_text("{}")  # of an earlier run
    with pytest.raises(TrainingInterruptedError, match=r"out .*step 2 of 4"):
        run.train(options(data, "out"), base, notes)
    assert notes.ended == 1
    assert sorted(file.name for file in (data.parent / "out").iterdir()) == sorted(ADAPTER_FILES)
    assert read_peft_adapter(data.parent / "out", base.config, AdapterLimits()).rank == 8


def test_ctrl_c_before_the_first_checkpoint_writes_no_adapter_and_says_so(base: BaseModel, data: Path) -> None:
    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterruptedError, match=r"out .*no adapter of this run.* step 2"):
        run.train(options(data, "out"), base, RecordingReport(interrupt))
    assert list((data.parent / "out").iterdir()) == []
    with pytest.raises(TrainingInterruptedError, match="comes after step 4"):  # the last step is a checkpoint too
        run.train(options(data, "out", checkpoint_every=50), base, RecordingReport(interrupt))


def test_a_full_disk_keeps_the_last_checkpoint_and_says_so(base: BaseModel, data: Path, tmp_path: Path) -> None:
    def fill_the_disk(number: int) -> None:
        if number == 3:
            full.enter_context(fill_disk(disk, free_bytes=4096))

    said = r"/out cannot be written: .*No space left on device.*step 2 of 4"
    with small_disk(tmp_path / "disk", 1 << 20) as disk, ExitStack() as full:
        with pytest.raises(TrainingError, match=said):
            run.train(options(data, "disk/out"), base, RecordingReport(fill_the_disk))
        assert sorted(file.name for file in (disk / "out").iterdir()) == sorted(ADAPTER_FILES)
        assert read_peft_adapter(disk / "out", base.config, AdapterLimits()).rank == 8


def test_a_folder_that_cannot_be_written_is_refused_before_the_base_is_loaded(
    base: BaseModel, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_base", lambda path, dtype: pytest.fail("too late"))
    with pytest.raises(TrainingError, match=r"--out .*data\.jsonl/out cannot be written: Not a directory"):
        run.train(options(data, "data.jsonl/out"), base, RecordingReport())


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(
    base: BaseModel, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = run.load_base
    bases: list[Any] = []
    monkeypatch.setattr(run, "load_base", lambda path, dtype: bases.append(load(path, dtype)) or bases[0])

    def spoil(number: int) -> None:
        if number == 2:  # the checkpoint of this step is written after the report
            bases[0].get_parameter("model.norm.weight").fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"loss is nan at step 3.*step 2"):
        run.train(options(data, "out", eval_data=None, held_out=0), base, RecordingReport(spoil))


def test_texts_are_evaluated_by_perplexity_only(base: BaseModel, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text('{"text": "the sun is in the north"}\n{"text": "once upon a time"}\n{"text": "a small house"}\n')
    notes = RecordingReport()
    run.train(options(file, "out", eval_data=None, held_out=0.4, steps=30), base, notes)
    before, after = notes.evaluations["before"], notes.evaluations["after"]
    assert (before.exact, before.num_examples) == (None, 1)
    assert before.perplexity != after.perplexity
    assert notes.losses[-1] < notes.losses[0]


def test_without_held_out_examples_nothing_is_evaluated(base: BaseModel, data: Path) -> None:
    notes = RecordingReport()
    trained = run.train(options(data, "out", eval_data=None, held_out=0), base, notes)
    assert (trained.before, trained.after, notes.evaluations) == (None, None, {})


def test_an_example_longer_than_the_bound_stops_the_run_before_the_base_is_loaded(base: BaseModel, data: Path) -> None:
    data.write_text(json.dumps({"prompt": "the rain " * 30, "completion": "x"}) + "\n" + data.read_text())
    with pytest.raises(TrainingDataError, match=r"data.jsonl, line 1: \d+ tokens.* --max-length 40"):
        run.train(options(data, "out", max_length=40), base, RecordingReport())
    notes = RecordingReport()
    run.train(options(data, "out", max_length=40, skip_long=True), base, notes)
    assert "2 examples longer than 40 tokens are left out" in notes.notes  # the example is in both files
    assert "5 held-out examples repeat questions of the training data: they measure memorization" in notes.notes


def test_a_bound_above_the_context_window_is_refused(base: BaseModel, data: Path) -> None:
    with pytest.raises(TrainingError, match=r"--max-length is 2000.* 640"):
        run.train(options(data, "out", max_length=2000), base, RecordingReport())
