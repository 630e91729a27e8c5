"""Three encoders and their heads; every trainable parameter of FLAVA lives here."""
