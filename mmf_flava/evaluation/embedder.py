"""FLAVA's vectors of photos and texts, for people who search, sort or cluster with them.

Shapes: N items, E width of the contrastive space, D width of the multimodal encoder.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from mmf_flava.data.pictures import decode
from mmf_flava.data.processors import FlavaImageProcessor, FlavaTextProcessor
from mmf_flava.data.record import BadRecord, Record
from mmf_flava.errors import UserError
from mmf_flava.weights.sources import TOKENIZER_FILES
from mmf_flava.models.pretrained import load_pretrained

TOKENIZER = "bert-base-uncased"  # what the released weights were trained with
MAX_LENGTH = 77  # tokens of a text, as in evaluations

Picture = str | Path | Image.Image | np.ndarray
T = TypeVar("T")


class Embedder:
    """Photos, texts and pairs as vectors.

    Args:
        weights: anything that ``load_pretrained`` takes: a run's folder, a file, an address, ``facebook/flava-full``.
        tokenizer: folder or hub name; by default the one beside the weights, else BERT's.
        device: null takes the GPU where there is one.
        batch_size: of the model's calls.

    Raises:
        UserError: no such weights or tokenizer, or a vocabulary larger than the weights'.
    """

    def __init__(
        self,
        weights: str | Path,
        tokenizer: str | Path | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 32,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.batch_size = batch_size
        model: Any = load_pretrained(weights)
        self.model = model.to(self.device)
        embedding = model.image_encoder.patch_embed
        side, patch = embedding.img_size[0], embedding.patch_size[0]
        self.image_processor = FlavaImageProcessor(
            {"image_size": side, "patch_size": patch, "codebook_size": None, "mask": None}
        )
        self._tokenizer = tokenizer or _beside(weights) or TOKENIZER
        self._text_processor: FlavaTextProcessor | None = None

    @property
    def text_processor(self) -> FlavaTextProcessor:
        """Made when the first text comes: who has photos only needs no tokenizer."""
        if self._text_processor is None:
            rows, longest = (len(table.weight) for table in self._tables())
            found = FlavaTextProcessor({"tokenizer": str(self._tokenizer), "max_length": min(MAX_LENGTH, longest)})
            if found.vocab_size > rows:
                raise UserError(
                    f"The tokenizer {self._tokenizer} has {found.vocab_size} words, the weights know {rows}; name the "
                    "tokenizer that they were trained with."
                )
            self._text_processor = found
        return self._text_processor

    def _tables(self) -> tuple[Any, Any]:
        text = self.model.text_encoder
        return text.word_embeddings, text.position_embeddings

    def pixels(self, picture: Picture) -> torch.Tensor:
        """(3, H, W) what the image encoder sees of a picture: all of it, squashed to a square.

        Raises:
            BadRecord: a file that cannot be read, or that is no picture.
        """
        if isinstance(picture, str | Path):
            try:
                content = Path(picture).expanduser().read_bytes()
            except OSError as error:
                raise UserError(f"{picture} cannot be read: {error.strerror}.") from error
            picture = decode(Record(str(picture), {"jpg": content}), self.image_processor.decode_size)
        elif isinstance(picture, np.ndarray):
            picture = np.array(picture)  # torch warns of those that may not be written to
        rng = np.random.default_rng(0)
        return self.image_processor({"image": picture, "rng": rng, "train": False})["image"]

    def images(self, pictures: Iterable[Picture]) -> np.ndarray:
        """(N, E) float32 unit vectors; a text of the same meaning lies near.

        Args:
            pictures: paths, PIL images or (h, w, 3) uint8 arrays.

        Raises:
            UserError: one of them is no picture; it is named.
        """
        return self._rows(self.image_batch(self._stack(part)) for part in self._parts(pictures))

    def texts(self, texts: Iterable[str]) -> np.ndarray:
        """(N, E) float32 unit vectors; longer texts than 77 tokens are cut."""
        return self._rows(self.text_batch(part) for part in self._parts(texts))

    def pairs(self, pictures: Iterable[Picture], texts: Iterable[str]) -> np.ndarray:
        """(N, D) float32: [CLS_M] of the multimodal encoder, which sees both; what finetuning starts from."""
        parts = self._parts(zip(pictures, texts, strict=True))
        return self._rows(self.pair_batch(self._stack([p for p, _ in part]), [t for _, t in part]) for part in parts)

    # ------------------------------------------------------------------ one batch

    @torch.no_grad()
    def image_batch(self, image_B3HW: torch.Tensor) -> np.ndarray:
        """(B, E) of what ``pixels`` gave."""
        return self.model.encode_image(image_B3HW.to(self.device)).float().cpu().numpy()

    @torch.no_grad()
    def text_batch(self, texts: Sequence[str]) -> np.ndarray:
        """(B, E)."""
        ids, mask = (tensor.to(self.device) for tensor in self.text_processor.encode(texts))
        return self.model.encode_text(ids, mask).float().cpu().numpy()

    @torch.no_grad()
    def pair_batch(self, image_B3HW: torch.Tensor, texts: Sequence[str]) -> np.ndarray:
        """(B, D)."""
        ids, mask = (tensor.to(self.device) for tensor in self.text_processor.encode(texts))
        return self.model.encode_multimodal(image_B3HW.to(self.device), ids, mask)[:, 0].float().cpu().numpy()

    def _stack(self, pictures: Sequence[Picture]) -> torch.Tensor:
        try:
            return torch.stack([self.pixels(picture) for picture in pictures])
        except BadRecord as error:
            raise UserError(f"{error}.") from error

    def _parts(self, items: Iterable[T]) -> Iterable[list[T]]:
        iterator = iter(items)
        while part := list(islice(iterator, self.batch_size)):
            yield part

    @staticmethod
    def _rows(parts: Iterable[np.ndarray]) -> np.ndarray:
        found = list(parts)
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)


def _beside(weights: str | Path) -> Path | str | None:
    """Where the weights' own tokenizer is, if there is one."""
    folder = Path(weights).expanduser()
    if folder.is_dir() and any((folder / name).is_file() for name in TOKENIZER_FILES):
        return folder
    return None
