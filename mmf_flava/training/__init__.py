"""The trainers ``flava`` and ``flava_finetune``: training loop, precision, sharding, checkpoints."""
