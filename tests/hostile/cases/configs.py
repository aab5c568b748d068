"""adapter_config.json with keys that are missing, of wrong types, out of bounds, unknown or unsupported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.hostile.case import HostileCase, bad_config, bad_config_text, changed

INFINITE = 10**400  # JSON has whole numbers of any length; this one is beyond float64

# key -> invalid values, one of each kind. The message must name the key.
WRONG: dict[str, list[Any]] = {
    "peft_type": [..., None, "lora", "LOHA", "PROMPT_TUNING", ["LORA"]],
    "task_type": ["SEQ_CLS", "", []],
    "model_type": ["mistral", "Gemma", {}],
    "r": [..., None, 0, 1 << 31, INFINITE, 4.0, "4", True],
    "lora_alpha": [..., None, INFINITE, "8", True, []],
    "use_rslora": [0, "true"],
    "rank_pattern": [[], "q_proj", {"q_proj": None}, {"q_proj": 0}, {"q_proj": 4.0}, {"q_proj": True}],
    "alpha_pattern": [[], "q_proj", {"q_proj": None}, {"q_proj": INFINITE}, {"q_proj": True}],
    "target_modules": [5, {}, [None], [["q_proj"]]],
    "exclude_modules": [5, {"q_proj": 1}, [None], "q_proj["],
    "layers_to_transform": ["0", True, {}, [-1.0], [True], [None]],
    "layers_pattern": [7, {}, [None], "layers["],
    "ensure_weight_tying": [0, "true"],
    "peft_version": [5, {}],
    "bias": ["some", "", []],
    "init_lora_weights": ["PISSA", "pissa_niter_16", "unheard of", "", 0, []],
    "base_model_name_or_path": [5, ["gemma"]],
    "use_dora": [0, "true"],
    "lora_bias": [0, "true"],
    "modules_to_save": ["norm", 5, [5], {"norm": 1}, ["score"], ["q_proj"], [""]],
    "trainable_token_indices": [5, "7", [-1], [1.5], [[7]], {"embed_tokens": "7"}, {"": [7]}, [7, 7], [1 << 31]],
    "layer_replication": [[[0, 2], [1, 3]], True],
    "target_parameters": [["mlp.experts.gate_up_proj"], "x"],
    "alora_invocation_tokens": [[5], True],
    "use_qalora": [True, 1],
    "use_bdlora": [{}, {"nblocks": 2}],
    "arrow_config": [{}, {"top_k": 3}],
    "kasa_config": [{}, {"beta": 1e-4}],
    "velora_config": [{}, {"num_groups": 32}],
    "monteclora_config": [{}, {"sample_scaler": 1.0}],
    "megatron_config": [True, {"hidden_size": 48}],
    "use_frobnication": [True, 0.1, "on", {"a": None}],
    "x" * 10_000: [True],
    "__class__": ["os.system"],
}


def wrong_values() -> Iterator[HostileCase]:
    for key, values in WRONG.items():
        for value in values:
            shown = "missing" if value is ... else json.dumps(value)[:40]
            yield bad_config(f"{key[:40]} {shown}", key[:80], **{key: value})


def spelt(key: str, text: str) -> HostileCase:
    """A case whose key has a literal text as its value, which JSON libraries do not write."""
    marker = '"the value"'
    return bad_config_text(
        f"{key} {text}",
        f"{key}|is not a JSON value",
        lambda good: changed(good, {key: "the value"}).replace(marker.encode(), text.encode()),
    )


TEXTS = (
    bad_config_text("an empty config", "not valid JSON", lambda good: b""),
    *(
        bad_config_text(f"a config of {text.decode()}", "a JSON object is needed", lambda good, text=text: text)
        for text in (b"null", b"[]", b'"LORA"')
    ),
    bad_config_text("a config cut short", "not valid JSON", lambda good: good[:-1]),
    bad_config_text("a config twice", "not valid JSON", lambda good: good + good),
    bad_config_text("a config with a byte order mark", "not valid JSON", lambda good: b"\xef\xbb\xbf" + good),
    bad_config_text("a config in UTF-16", "not valid JSON", lambda good: good.decode().encode("utf-16")),
    bad_config_text(
        "a config in Latin-1",
        "not valid JSON",
        lambda good: changed(good, {"revision": "the value"}).replace(b"the value", b"\xe4\xf6"),
    ),
    bad_config_text("a config in YAML", "not valid JSON", lambda good: b"peft_type: LORA\nr: 4\n"),
    bad_config_text("a config of Python", "not valid JSON", lambda good: repr(json.loads(good)).encode()),
    bad_config_text("a NUL at the end", "not valid JSON", lambda good: good + b"\x00"),
    bad_config_text("r twice", "'r' occurs twice", lambda good: b'{"r": 8, ' + good[1:]),
    bad_config_text("r twice, once escaped", "'r' occurs twice", lambda good: b'{"\\u0072": 8, ' + good[1:]),
    bad_config_text(
        "a key twice within a pattern",
        "'q_proj' occurs twice",
        lambda good: changed(good, {"rank_pattern": 0}).replace(
            b'"rank_pattern": 0', b'"rank_pattern": {"q_proj": 4, "q_proj": 4}'
        ),
    ),
    bad_config_text("deeply nested lists for a config", "nested too deeply", lambda good: b"[" * 500_000),
    bad_config_text("deeply nested objects for a config", "nested too deeply", lambda good: b'{"r":' * 200_000),
    bad_config_text(
        "deep nesting in an unknown key",
        "nested too deeply",
        lambda good: changed(good, {"x": "the value"}).replace(b'"the value"', b"[" * 100_000 + b"]" * 100_000),
    ),
    bad_config_text("a config above the bound", "more than 1048576 bytes", lambda good: good + b" " * (1 << 20)),
    bad_config_text(
        "a rank of a million digits",
        "not valid JSON",
        lambda good: changed(good, {"r": "the value"}).replace(b'"the value"', b"9" * 1_000_000),
    ),
    *(spelt(key, text) for key, text in (("lora_alpha", "NaN"), ("r", "Infinity"), ("lora_dropout", "-Infinity"))),
    *(spelt(key, text) for key, text in (("lora_alpha", "-1e999"), ("r", "1e999"))),
    spelt("alpha_pattern", '{"q_proj": 1e999}'),
)

# Regular expressions: none may take long, even if it would in Python's own engine.
PATTERNS = (
    *(
        bad_config(
            f"rank_pattern {pattern}",
            "rank_pattern.*(not a regular expression|is not supported)",
            rank_pattern={pattern: 4},
        )
        for pattern in ("(", "a{2,1}", "(?i)q_proj", "\\", "a" * 100 + "(")
    ),
    *(
        bad_config(
            f"rank_pattern {pattern}",
            "rank_pattern.* uses .*, which is not supported",
            alone=False,
            rank_pattern={pattern: 4},
        )
        for pattern in (r"(q_proj)\3", "(?(1)q_proj|b)", "(?>q_proj)", "q_proj*+")
    ),
    bad_config(
        "an expression of 5,000 characters", "expression of .* the limit is 4096", rank_pattern={"q" * 5000 + "*": 4}
    ),
    bad_config(
        "target_modules of 5,000 characters",
        "target_modules has an expression of 5000 characters; the limit is 4096",
        target_modules="q" * 5000,
    ),
    bad_config("5,000 patterns", "rank_pattern is .*at most 1024", rank_pattern={f"m{n}": 4 for n in range(5000)}),
    bad_config(
        "5,000 alpha patterns", "alpha_pattern is .*at most 1024", alpha_pattern={f"m{n}": 4 for n in range(5000)}
    ),
    bad_config(
        "a megabyte of expressions",
        "have 9\\d+ characters together; the limit is 65536",
        rank_pattern={f"{'a?' * 500}{n}": 4 for n in range(900)},
    ),
    bad_config(
        "groups in groups", "not a regular expression|nested this deeply", target_modules="(" * 2000 + ")" * 2000
    ),
    bad_config("a rank pattern above the bound", "rank", rank_pattern={"q_proj": 100_000}, alone=False),
    bad_config("a rank above the bound", "r is 100000; this server's limit is", r=100_000),
    *(
        bad_config(
            f"{name} that explodes",
            "take too long|does not adapt|has rank",
            alone=False,
            target_modules=pattern,
        )
        for name, pattern in (
            ("targets", r"(.*a){12}(.*b){12}.*c"),
            ("nested repeats", "((a*)*)*b"),
            ("alternatives", "(.|.|.|.)*" * 100 + "x"),
            ("lookarounds", "(?:(?=.*.*.*x)|.)*" * 60 + "x"),
            ("an empty body two billion times,", "(?:){2000000000}x"),
            ("an optional a thousand deep", "(?:.?){900}x"),
        )
    ),
)

CASES: tuple[HostileCase, ...] = (*wrong_values(), *TEXTS, *PATTERNS)
