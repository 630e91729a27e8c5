"""FLAVA's weights in four spellings: ours, Hugging Face's, torchmultimodal's and the original MMF code's.

``names`` holds the one table of key names, ``sizes`` reads and writes configurations, ``fit`` compares weights with a
model and says in one list what does not fit, ``encoders`` starts a single encoder from other people's ViTs and BERTs.
"""
