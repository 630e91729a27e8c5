"""Pretraining of an image encoder by self-distillation: DINO (Caron et al., 2021), the model ``flava_dino``."""
