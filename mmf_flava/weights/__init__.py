"""Reading, translating and loading of FLAVA's weights in four naming styles.

The styles are this package's own ("native"), Hugging Face's, torchmultimodal's and the original MMF code's.

sources: find the file of a path, URL or hub name, and read it under native keys
weight_files: read tensors from safetensors and torch files, without executing pickled code
pickled_tensors, restricted_pickle: read the tensors of a pickled module, without executing it
names: the table of keys in all styles, and translation in both directions
configs: the model's configuration from metadata, Hugging Face's config.json or tensor shapes
loading: the check that keys and shapes match, and the copy into a model
encoders: a single encoder from ViTs, BEiTs and BERTs
"""
