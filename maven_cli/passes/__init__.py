"""One module per worker pass: what it does, in the order it does it. Each returns a result and prints nothing."""
