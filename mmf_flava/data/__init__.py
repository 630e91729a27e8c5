"""Records on disk -> samples -> batches: shards, order, masks, tokens, processors, datasets and sampling."""
