"""Step-wise decoding of encoder-decoders: rows join and leave between steps."""
