"""Examples of the model's predictions for masked images and texts, shown in the report.

Shapes: h x w = size of the codebook's input images.
"""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from mmf_flava.config.run import ExamplesConfig
from mmf_flava.files import atomic

GREY = 0.5
MAX_TOKENS = 40  # maximum number of tokens shown per text


class ExampleWriter:
    """Writer of ``examples.json`` and its images: masked inputs with the model's predictions, shown in the report.

    Images require a codebook with a ``decode`` method; otherwise only sentences are written.

    Args:
        folder: output folder. If None, only the forward pass is run and nothing is written. Pass None on all ranks
            except 0, because a model with sharded parameters (FSDP) requires the forward pass on all ranks.
    """

    def __init__(self, folder: Path | None, config: ExamplesConfig) -> None:
        self.folder, self.config = folder, config
        self.images: list[dict[str, Any]] = []
        self.sentences: list[dict[str, Any]] = []

    @torch.no_grad()
    def add(self, model: Any, batch: Any, tokenizer: Any | None) -> None:
        """Add the predictions for one batch.

        Image-text pairs get one half of the configured number of examples, and single images or texts get the other.
        """
        output = model(batch)
        if self.folder is None:
            return
        pairs = "image" in batch and "input_ids" in batch
        for name, text in (("mim", False), ("mmm_image", False), ("mlm", True), ("mmm_text", True)):
            if name not in output:
                continue
            guesses = output[name].logits.argmax(-1)
            kind = "mmm" if pairs else name
            if text and tokenizer is not None:
                self._add_sentences(batch, guesses, kind, tokenizer)
            elif not text and hasattr(model.codebook, "decode"):
                self._add_images(batch, guesses, kind, model.codebook)

    def _add_images(self, batch: Any, guesses: Tensor, kind: str, codebook: Any) -> None:
        original, mask = batch["image_for_codebook"], batch["image_patch_mask"]
        codes = codebook(original)
        codes[mask] = guesses
        side = codebook.patch_size
        grid = (original.shape[-2] // side, original.shape[-1] // side)
        hidden = interpolate(mask.view(-1, 1, *grid).float(), size=original.shape[-2:]) > 0
        masked = original.masked_fill(hidden, GREY)
        filled = torch.where(hidden, codebook.decode(codes, grid), original)
        for index in range(min(self.config.images // 2, len(original))):
            stem = f"{kind}_{index}"
            views = {"original": original[index], "masked": masked[index], "filled": filled[index]}
            entry = {"id": batch["sample_id"][index], "kind": kind, "caption": None}
            for view, pixels in views.items():
                entry[view] = self._save(f"{stem}_{view}.png", pixels)
            if kind == "mmm":
                entry["caption"] = batch["captions"][index][0]
            self.images.append(entry)

    def _add_sentences(self, batch: Any, guesses: Tensor, kind: str, tokenizer: Any) -> None:
        labels = batch["lm_label_ids"]
        predicted_ids = labels.clone()
        predicted_ids[labels != -1] = guesses
        for index in range(min(self.config.sentences // 2, len(labels))):
            # without [CLS] and [SEP]
            positions = batch["input_mask"][index].nonzero().flatten().tolist()[1:-1][:MAX_TOKENS]
            tokens: list[dict[str, Any]] = []
            for position in positions:
                text = tokenizer.id_to_token(int(batch["input_ids"][index, position]))
                token = {"text": text, "masked": bool(labels[index, position] != -1)}
                if token["masked"]:
                    token["guess"] = tokenizer.id_to_token(int(predicted_ids[index, position]))
                    token["right"] = token["guess"] == text
                tokens.append(token)
            image = f"mmm_{index}_original.png" if kind == "mmm" and index < self.config.images // 2 else None
            self.sentences.append({"id": batch["sample_id"][index], "kind": kind, "image": image, "tokens": tokens})

    def _save(self, name: str, pixels_3hw: Tensor) -> str:
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        array = (pixels_3hw.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        with atomic.replace_file(self.folder / name) as file:
            Image.fromarray(array).save(file, "PNG")
        return name

    def write(self) -> None:
        """Write ``examples.json``; ``add`` has already written the images that it refers to."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic.write_json(self.folder / "examples.json", {"images": self.images, "sentences": self.sentences})
