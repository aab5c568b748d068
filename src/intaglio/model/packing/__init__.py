"""`intaglio pack`: from a checkpoint to one file with quantized weights, config and tokenizer.

    pack            the whole run; begin here
    plan            what the file will hold and where, known before anything is quantized
    partial_file    the file while it is written, and the journal by which a killed run is resumed
    blocks          quantized matrices as blocks of bytes
    sources         config and tokenizer files of a checkpoint
    embedded_files  the same files taken out of a packed file again

`model.weights.packed_model` reads the file and describes its format. Does not know where weights of errors come from.
"""
