"""`intaglio eval`: how well a model predicts a text, and how far two models, formats or adapters differ on it.

Begin with `evaluate.evaluate`. Forwards run in this process, without the engine's scheduler.

    texts        files and standard input as texts
    windows      the sliding windows in which a text longer than the context is scored
    subject      one model with or without an adapter, and its logits piece by piece
    loading      from paths and settings to the one or two subjects of a run, within this machine's memory
    scores       losses and divergences from logits
    evaluate     texts and subjects to results
    results      the figures
    calibration  the mean square of each input's activations, for `intaglio pack --calibrate`

Does not know HTTP, the terminal, or how an adapter is verified: one whose effect is below rounding can be evaluated.
"""
