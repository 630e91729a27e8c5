"""Configuration: recipe files (``recipes``), their keys and types (``model``, ``run``), validation (``schema``).

Imports neither torch nor MMF, so that unknown keys are reported before the slow imports.
"""
