"""Training loops of other libraries, inside a ``train(run)``: import the one that you use."""
