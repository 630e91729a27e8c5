"""Patches for MMF, fairseq, fairscale and torchvision, and an interface to both supported versions of MMF.

``mmf_flava.pth`` installs the import hook of ``hooks`` at interpreter start. The hook loads the patches when one of the
patched packages is first imported. Patches are grouped by kind:

* ``imports``: needed to import and run these packages with current versions of their dependencies. Always applied.
* ``defects``: fixes of errors in MMF and fairscale that stop a run or make its results wrong. Always applied. Each run
  lists them in its log.
* ``behaviour``: defaults, checks and messages of FLAVA. Active only in FLAVA's runs, which use a model, trainer or
  dataset of mmf_flava (see ``flava_run``).

``mmf_api`` is the interface to MMF 1.0.0rc10 and to MMF's main branch.

``python -m mmf_flava.compat`` prints a table of all patches and documents ``MMF_FLAVA_COMPAT``, which selects
the patches to apply. This module imports nothing, because Python imports it at every start.
"""
