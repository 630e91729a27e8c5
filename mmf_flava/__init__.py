"""FLAVA as a plugin for MMF. Importing this package is cheap: nothing here imports torch or MMF."""

__version__ = "0.1.0"
