"""Evaluation of any model with ``encode_image`` and ``encode_text``; runs inside MMF's trainer."""
