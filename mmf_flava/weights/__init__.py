"""Reading, translation and loading of FLAVA weights whose keys follow one of four naming styles.

The styles are mmf_flava's ("native"), Hugging Face's, torchmultimodal's and the style of the original MMF code.

sources: find or download a weights file, and translate its keys to native keys
weight_files: read tensors from safetensors and PyTorch files, without executing pickled code
pickled_tensors, restricted_pickle: read the tensors of a pickled PyTorch module, without executing pickled code
names: the table of keys in all styles, and translation between the native style and the others
configs: read the model configuration from a file, or infer it from tensor shapes
loading: check that keys and shapes match, and copy tensors into a model
encoders: load a single encoder from a ViT, a BEiT, a pre-norm text encoder or a DINO teacher
vit_files: write an image encoder for timm, and student and teacher with the keys of DINO's code
"""
