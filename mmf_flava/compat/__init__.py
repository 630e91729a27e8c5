"""Patches for MMF, fairseq, fairscale and torchvision, and ``mmf_api``, the interface to MMF's two versions.

``hooks`` is installed at interpreter start by ``mmf_flava.pth``. When one of these packages is first imported, it loads
the patches, which are sorted by the runs that they act in:

* ``imports``: required for these packages to import and work with current dependencies. Always applied.
* ``defects``: fixes of errors that stop or falsify any MMF run. Always applied, and listed in the log of each run.
* ``behaviour``: defaults, checks and messages of FLAVA. Act only in FLAVA's own runs, see ``flava_run``.

``python -m mmf_flava.compat`` prints a table of all patches and documents ``MMF_FLAVA_COMPAT``, which selects among
them. This module imports nothing, because every Python start imports it.
"""
