"""The data pipeline: records on disk, sample order, masking, tokens, processors, datasets and batch sampling."""
