"""FLAVA's six pretraining losses, registered with MMF. The recipe sets their weights.

A loss is a module whose forward pass returns a scalar tensor for ``(sample_list, model_output)``. Its class attribute
``needs`` is the key of its input in ``model_output``, a dataclass of ``models.outputs``. A loss is skipped for batches
without this key.
"""
