"""Search in embeddings by texts or images: ``python -m mmf_flava.search INDEX "a dog on a beach" --out found.html``."""
