"""Published sets of labelled images as records: what torchvision reads, and what it does not read as CLIP used it."""
