"""Zero-shot classification, retrieval and linear probes of models with ``encode_image`` and ``encode_text``."""
