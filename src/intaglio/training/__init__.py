"""From examples to an adapter that this server serves: LoRA over a frozen Gemma, by PEFT and torch.

    options    every option, with its bounds
    data       examples read from JSONL, checked line by line
    encode     an example as token ids, just as the server writes its prompts
    split      what is trained on and what is held out
    extra      whether torch, transformers and peft are installed
    dtypes     the dtype the base computes in, chosen by measurement
    memory     what a training takes, and whether it fits
    base       the served checkpoint as a torch model
    adapt      fresh LoRA matrices on it
    batches    batches of like length
    loss       hidden states to cross entropy, at answer positions only
    evaluate   loss and exact answers on held-out examples
    schedule   how many steps, and the learning rate of each
    loop       the optimizer's steps
    save       PEFT's two files and the card
    report     the interface for progress messages
    run        all of it, in order; begin here

torch, transformers and peft are imported inside functions of this package and nowhere else: the server needs none of
them.
"""
