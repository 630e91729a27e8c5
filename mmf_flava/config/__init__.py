"""Configuration: recipe files (``recipes``), their keys and types (``model``, ``run``), validation (``schema``).

This package imports neither torch nor MMF, so that errors in a config are reported before the slow imports.
"""
