"""The trainer ``training.trainer: flava``: loop, precision, sharding, checkpoints."""
