"""Data pipeline: tar shards and other record formats, sample order, masking, tokenization, datasets and loaders."""
