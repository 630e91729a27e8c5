"""FLAVA's encoders, prediction heads and image codebooks, and the two MMF models that use them."""
