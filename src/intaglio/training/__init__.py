"""Trains an adapter from examples: LoRA over a frozen Gemma, by PEFT and torch. Begin with `run`.

Knows the served checkpoint, tokenizer and prompt format, so that training sees the tokens that serving will see. Does
not know the engine, finetunes or HTTP.

    options    every option, with its bounds
    data       examples read from JSONL, checked line by line, and the split into training and held-out examples
    encode     an example as token ids, by the functions that render a request's prompt
    dtypes     the dtype the base computes in, chosen by measurement
    memory     the memory a run needs, and whether it fits
    base       the served checkpoint as a torch model, and fresh LoRA matrices on it
    batches    batches of examples of similar length
    loss       hidden states to cross entropy, at answer positions only
    evaluate   loss and exact answers on held-out examples
    loop       how many steps, the learning rate of each, the optimizer's steps
    save       PEFT's two files and the card
    report     the interface for progress messages
    run        the whole training, in order

torch, transformers and peft are imported inside functions of this package and nowhere else: the server needs none of
them.
"""
