"""Images, texts and series to model inputs, and outputs to named results."""
