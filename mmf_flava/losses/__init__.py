"""FLAVA's six losses: formulas only, registered with MMF, switched and weighted in YAML.

A loss is a module ``loss(sample_list, model_output) -> ()``. Its class attribute ``needs`` names the entry of
``model_output`` (a dataclass of ``models.outputs``) that it is computed from; a batch without that entry skips it.
"""
