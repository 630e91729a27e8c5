"""The text processor of pretraining, which creates token ids and a masked copy of them.

Shapes: N = number of texts, T = number of tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmf_flava.config.paths import resolve_path
from mmf_flava.config.processors import TextProcessorConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.data.initial_processors import InitialProcessors
from mmf_flava.data.masking import mask_tokens
from mmf_flava.data.tokenizer import build_continuation_table, compute_vocabulary_hash, find_special_ids


class TextProcessor:
    """Processor that returns the token ids of a text, and a masked copy for MLM (paper section 3.2).

    Args:
        config: settings, see ``TextProcessorConfig``.
        initial: source of the default tokenizer and max_length.
        data_dir: folder of the dataset, which may contain the folder of the tokenizer.
    """

    def __init__(self, config: Any, initial: InitialProcessors, data_dir: str | Path | None = None):
        params = parse_section(TextProcessorConfig, config, "flava_text")
        name = params.tokenizer
        if name and data_dir is not None and (local := resolve_path(name, data_dir)).is_dir():
            name = str(local)
        self.tokenizer, self.max_length = initial.load_tokenizer(name, params.max_length)
        self.special = find_special_ids(self.tokenizer)
        self.vocabulary_hash = compute_vocabulary_hash(self.tokenizer)
        self.vocab_size = self.tokenizer.get_vocab_size()
        self.pad_to_multiple = params.pad_to_multiple
        self.mask_probability, self.whole_word, self.replace = (
            params.mask_probability,
            params.whole_word,
            params.replace,
        )
        self._begins_word = ~build_continuation_table(self.tokenizer)
        self._maskable = np.ones(self.vocab_size, dtype=bool)
        # [UNK] replaces a real word, so it may be masked, as in BERT.
        self._maskable[[self.special.cls, self.special.sep, self.special.mask, self.special.pad]] = False

    def __call__(self, item: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the original and the masked token ids of a text, without padding.

        Args:
            item: {"text": str, or "input_ids": ids without [CLS] and [SEP]; "rng": numpy Generator}.

        Returns:
            (T,) long tensors with MMF's names: input_ids, input_ids_masked, input_mask (all 1), segment_ids (all 0),
            lm_label_ids (-1 = ignored).
        """
        ids = self._add_special_tokens(item["input_ids"] if "input_ids" in item else self._tokenize(item["text"]))
        masked, labels = mask_tokens(
            item["rng"],
            ids,
            self._maskable[ids],
            self._begins_word[ids] if self.whole_word else None,
            self.mask_probability,
            mask_id=self.special.mask,
            vocab_size=self.vocab_size,
            replace=self.replace,
        )
        return {
            "input_ids": torch.from_numpy(ids),
            "input_mask": torch.ones(len(ids), dtype=torch.long),
            "segment_ids": torch.zeros(len(ids), dtype=torch.long),
            "input_ids_masked": torch.from_numpy(masked),
            "lm_label_ids": torch.from_numpy(labels),
        }

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenize texts without masking, for zero-shot classification and retrieval.

        Returns:
            input_ids (N, T) long and input_mask (N, T) bool. T is the length of the longest text, at most
            ``max_length``.
        """
        sequences = [self._add_special_tokens(self._tokenize(text)) for text in texts]
        longest = max((len(sequence) for sequence in sequences), default=0)
        ids = np.full((len(sequences), longest), self.special.pad, dtype=np.int64)
        mask = np.zeros((len(sequences), longest), dtype=bool)
        for n, sequence in enumerate(sequences):
            ids[n, : len(sequence)], mask[n, : len(sequence)] = sequence, True
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def _tokenize(self, text: str) -> list[int]:
        # A WordPiece token has at most 100 characters, so characters beyond this limit would be truncated anyway.
        return self.tokenizer.encode(text[: 101 * self.max_length], add_special_tokens=False).ids

    def _add_special_tokens(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        truncated = ids[: self.max_length - 2]
        sequence = np.empty(len(truncated) + 2, dtype=np.int64)
        sequence[0], sequence[1:-1], sequence[-1] = self.special.cls, truncated, self.special.sep
        return sequence
