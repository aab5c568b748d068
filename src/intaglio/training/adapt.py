"""Fresh LoRA matrices on a frozen base."""

from __future__ import annotations

from typing import Any

from intaglio.training.options import TrainingOptions


def add_adapter(base: Any, options: TrainingOptions) -> Any:
    """The base as a PeftModel whose new matrices, in float32, want a gradient. B is zero: nothing changes yet."""
    import warnings

    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=options.rank,
        lora_alpha=2 * options.rank if options.alpha is None else options.alpha,
        target_modules=list(options.targets),
        lora_dropout=options.dropout,
        use_rslora=options.rslora,
        use_dora=options.dora,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name; nothing we could mend
        return get_peft_model(base, config)
