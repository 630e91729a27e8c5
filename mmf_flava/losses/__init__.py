"""FLAVA's six pretraining losses and DINO's loss, registered with MMF. The recipe sets their weights.

A loss is a module whose forward pass returns a scalar tensor for ``(sample_list, model_output)``. Its class attribute
``needs`` is a key of ``model_output``. The value of this key is the input of the loss, a dataclass of
``models.outputs``. If the output for a batch does not have this key, the loss is not computed.

A loss is a mean, and its class attribute ``mean_over`` says over what: ``patches`` or ``tokens`` (masked, in matching
pairs), ``pairs`` (matching) or ``samples``, the default. It decides how the losses of several batches are averaged.
"""
