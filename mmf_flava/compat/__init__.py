"""Patches for MMF, fairseq, fairscale and torchvision, and ``mmf_api``, the interface to MMF's two versions.

``mmf_flava.pth`` installs the import hook of ``hooks`` at interpreter start. The hook loads the patches when one of the
patched packages is first imported. Patches are grouped by kind:

* ``imports``: required for these packages to import and work with current dependencies. Always applied.
* ``defects``: fixes of MMF errors that stop a run or make its results wrong. Always applied, listed in each run's log.
* ``behaviour``: defaults, checks and messages of FLAVA. Active only in FLAVA's runs, see ``flava_run``.

``python -m mmf_flava.compat`` prints a table of all patches and documents ``MMF_FLAVA_COMPAT``, which selects
patches. This module imports nothing, because every Python start imports it.
"""
