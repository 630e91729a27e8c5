"""FLAVA embeddings of images, texts and image-text pairs, for search, ranking and clustering.

Shapes: N items, E width of the contrastive space, D width of the multimodal encoder.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from mmf_flava.config.device import check_device
from mmf_flava.config.schema import check_positive
from mmf_flava.data.annotations import clean_text
from mmf_flava.data.image_decoding import ImageInput, load_image
from mmf_flava.data.image_processor import ImageProcessor
from mmf_flava.data.initial_processors import InitialProcessors
from mmf_flava.data.processor_files import read_processors
from mmf_flava.data.record import BadRecord
from mmf_flava.data.text_processor import TextProcessor
from mmf_flava.errors import UserError
from mmf_flava.models.dtypes import DTYPES
from mmf_flava.models.pretrained import load_pretrained

T = TypeVar("T")


class Embedder:
    """Computes embeddings of images, texts and image-text pairs, with the processors that are stored with the weights.

    If the weights have no stored processors, a warning states the defaults that are assumed.

    Args:
        weights: any source that ``load_pretrained`` accepts: a run folder, a weights file, a URL, or a Hugging Face
            model ID such as ``facebook/flava-full``.
        tokenizer: folder or Hugging Face model ID; default: the tokenizer stored with the weights, otherwise
            bert-base-uncased.
        device: default: the GPU if available, otherwise the CPU.
        batch_size: items per forward pass.
        max_length: maximum number of tokens of a text; default: the value stored with the weights, otherwise 77.
        dtype: fp32, bf16 or fp16, in which matrix products are computed (torch's autocast).
        mean, std: three numbers each, for pixel values in [0, 1]; default: the values stored with the weights,
            otherwise CLIP's values.

    Raises:
        UserError: the weights or the tokenizer were not found, or the tokenizer's vocabulary does not fit the weights.
    """

    def __init__(
        self,
        weights: str | Path,
        tokenizer: str | Path | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 32,
        *,
        max_length: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        dtype: str = "fp32",
    ) -> None:
        if dtype not in DTYPES:
            raise UserError(f"dtype: {dtype!r} is not one of {', '.join(DTYPES)}.")
        self.dtype = dtype
        if device is not None:
            check_device(str(device), torch.cuda.device_count(), "device")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.batch_size = check_positive(batch_size, "batch_size")
        model: Any = load_pretrained(weights)
        self.model = model.to(self.device)
        patch_embed = model.image_encoder.patch_embed
        side, patch = patch_embed.img_size[0], patch_embed.patch_size[0]
        saved = read_processors(weights)
        saved.warn_of_assumptions(tokenizer is None, max_length is None, mean is None or std is None)
        self._initial = InitialProcessors(saved, len(model.text_encoder.position_embeddings.weight))
        statistics = {
            name: list(value) if isinstance(value, Iterable) else value
            for name, value in (("mean", mean), ("std", std))
        }
        self.image_processor = ImageProcessor(
            {"image_size": side, "patch_size": patch, "codebook_size": None, "mask": None, **statistics},
            self._initial,
        )
        self._text_params = {"tokenizer": None if tokenizer is None else str(tokenizer), "max_length": max_length}
        self._text_processor: TextProcessor | None = None
        if tokenizer is not None and saved.vocabulary_sha256 is not None:
            assert self.text_processor  # checks the vocabulary

    @property
    def text_processor(self) -> TextProcessor:
        """The text processor, created on first use, so that images can be embedded without a tokenizer."""
        if self._text_processor is None:
            vocab_size = len(self.model.text_encoder.word_embeddings.weight)
            processor = TextProcessor(self._text_params, self._initial)
            if processor.vocab_size > vocab_size:
                raise UserError(
                    f"The tokenizer has {processor.vocab_size} tokens, but the weights have {vocab_size}. Set the "
                    "tokenizer that the weights were trained with."
                )
            self._text_processor = processor
        return self._text_processor

    def preprocess(self, image: ImageInput) -> torch.Tensor:
        """Return an image as (3, H, W) input of the image encoder, resized to a square without cropping.

        Raises:
            UserError: the file cannot be read, or the type of the input is not supported.
            BadRecord: the file is not an image.
        """
        item = {"image": load_image(image), "rng": np.random.default_rng(0), "train": False}
        return self.image_processor(item)["image"]

    def images(self, images: ImageInput | Iterable[ImageInput]) -> np.ndarray:
        """Return the float32 embeddings of N images, (N, projection size), normalised to unit length.

        Dot products with text embeddings are cosine similarities.

        Args:
            images: one image or several: paths, bytes of image files, PIL images of any mode, or arrays of shape
                (h, w), (h, w, 3) or (h, w, 4) and dtype uint8 or uint16. The same image gives the same embedding in all
                these forms.

        Raises:
            UserError: a file cannot be read or is not an image, or the type of an input is not supported.
        """
        items = enumerate(_list_images(images))
        batches = (self.embed_image_batch(self._stack(batch)) for batch in self._batches(items))
        return _concatenate(batches, self.model.image_projection.out_features)

    def texts(self, texts: str | Iterable[str]) -> np.ndarray:
        """Return the float32 embeddings of N texts, (N, projection size), normalised to unit length.

        Texts are truncated to ``max_length`` tokens.

        Raises:
            UserError: an item is not a string.
        """
        batches = (self.embed_text_batch(batch) for batch in self._batches(_list_texts(texts)))
        return _concatenate(batches, self.model.text_projection.out_features)

    def pairs(self, images: ImageInput | Iterable[ImageInput], texts: str | Iterable[str]) -> np.ndarray:
        """Return (N, D) float32 features of N image-text pairs, e.g. as input of a classifier.

        They are the multimodal encoder's outputs for the token [CLS_M].

        Raises:
            UserError: see ``images`` and ``texts``; also raised if the numbers of images and texts differ.
        """
        batches = self._batches(_zip_equal(enumerate(_list_images(images)), _list_texts(texts)))
        return _concatenate(
            (
                self.embed_pair_batch(self._stack([image for image, _ in batch]), [text for _, text in batch])
                for batch in batches
            ),
            self.model.multimodal_encoder.image_projection.out_features,
        )

    # ------------------------------------------------------------------ one batch

    @torch.no_grad()
    def embed_image_batch(self, image_B3HW: torch.Tensor) -> np.ndarray:
        """Return the unit embeddings, (B, projection size), of images that ``preprocess`` returned."""
        with self._autocast():
            embeddings = self.model.encode_image(image_B3HW.to(self.device))
        return self._unit(embeddings)

    @torch.no_grad()
    def embed_text_batch(self, texts: Sequence[str]) -> np.ndarray:
        """Return the unit embeddings of texts, (B, projection size)."""
        ids, mask = (tensor.to(self.device) for tensor in self.text_processor.encode(texts))
        with self._autocast():
            embeddings = self.model.encode_text(ids, mask)
        return self._unit(embeddings)

    @torch.no_grad()
    def embed_pair_batch(self, image_B3HW: torch.Tensor, texts: Sequence[str]) -> np.ndarray:
        """Return (B, D) features of image-text pairs from the multimodal encoder."""
        ids, mask = (tensor.to(self.device) for tensor in self.text_processor.encode(texts))
        with self._autocast():
            features = self.model.encode_multimodal(image_B3HW.to(self.device), ids, mask)[:, 0]
        return features.float().cpu().numpy()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, DTYPES[self.dtype], enabled=self.dtype != "fp32")

    def _unit(self, embeddings_BE: torch.Tensor) -> np.ndarray:
        """Return unit embeddings in fp32. Those of half precision are normalised again."""
        if self.dtype != "fp32":
            embeddings_BE = torch.nn.functional.normalize(embeddings_BE.float(), dim=-1)
        return embeddings_BE.float().cpu().numpy()

    def _stack(self, images: Sequence[tuple[int, ImageInput]]) -> torch.Tensor:
        """Preprocess numbered images to a (B, 3, H, W) tensor; error messages contain the number of the image."""
        inputs = []
        for number, image in images:
            try:
                inputs.append(self.preprocess(image))
            except BadRecord as error:
                raise UserError(f"images[{number}]: {error}.") from error
            except UserError as error:
                raise UserError(f"images[{number}]: {error}") from error
        return torch.stack(inputs)

    def _batches(self, items: Iterable[T]) -> Iterable[list[T]]:
        iterator = iter(items)
        while batch := list(islice(iterator, self.batch_size)):
            yield batch


def _list_images(images: Any) -> Iterable[Any]:
    """Return an iterable of images. A single image, or an input that ``preprocess`` will reject, is put in a list."""
    one_array = isinstance(images, np.ndarray) and images.ndim in (2, 3) and images.dtype != object
    one_item = isinstance(images, str | Path | bytes | bytearray | memoryview | Image.Image | torch.Tensor | Mapping)
    if one_array or one_item or hasattr(images, "read") or not isinstance(images, Iterable):
        return [images]
    return images


def _list_texts(texts: Any) -> Iterator[str]:
    """Yield the texts of a string or an iterable of strings. Raise UserError for anything else."""
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise UserError(f"texts: expected a string or a list of strings, got {type(texts).__name__}.")
    for number, text in enumerate([texts] if isinstance(texts, str) else texts):
        if not isinstance(text, str):
            raise UserError(f"texts[{number}]: expected a string, got {type(text).__name__}. Pass a list of strings.")
        yield clean_text(text)


def _zip_equal(images: Iterable[T], texts: Iterable[str]) -> Iterator[tuple[T, str]]:
    missing = object()
    for image, text in zip_longest(images, texts, fillvalue=missing):
        if image is missing or text is missing:
            raise UserError("pairs: the numbers of images and texts differ. Pass one text for each image.")
        yield image, text  # type: ignore[misc]


def _concatenate(batches: Iterable[np.ndarray], width: int) -> np.ndarray:
    return np.concatenate([np.empty((0, width), np.float32), *batches])
