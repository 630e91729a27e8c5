"""FLAVA's six losses, registered with MMF, enabled and weighted in YAML.

A loss is a module ``loss(sample_list, model_output) -> ()``. Its class attribute ``needs`` is the key of its input in
``model_output`` (a dataclass of ``models.outputs``); the loss is skipped for batches without that key.
"""
