"""Loading of WordPiece tokenizers, their special token ids, and a hash of their vocabulary."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from mmf_flava.errors import UserError

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True)
class SpecialIds:
    """Ids of BERT's five special tokens."""

    cls: int
    sep: int
    mask: int
    pad: int
    unk: int


def load_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """Load a tokenizer from a local folder or from the Hugging Face hub.

    Args:
        name_or_path: folder with ``tokenizer.json`` or ``vocab.txt`` (BERT, lower case), or a Hugging Face model ID.

    Raises:
        UserError: the folder has neither file, or the tokenizer cannot be loaded from the Hugging Face hub.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        if (folder / "vocab.txt").is_file():
            return build_wordpiece((folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n"))
        raise UserError(f"{folder} has no tokenizer. Expected tokenizer.json or vocab.txt.")
    name = str(name_or_path)
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:  # not a Hugging Face model ID
        raise UserError(f"The tokenizer folder {name} does not exist. Correct the path.")
    try:
        return Tokenizer.from_pretrained(name)
    except Exception as error:  # raised by tokenizers for unknown IDs and network errors
        raise UserError(
            f"The tokenizer {name!r} is not a local folder, and could not be loaded from the Hugging Face hub "
            f"({type(error).__name__}). Set it to a folder with tokenizer.json or vocab.txt, or to a valid model ID."
        ) from error


def build_wordpiece(vocabulary: list[str]) -> Tokenizer:
    """Build a WordPiece tokenizer like BERT-uncased's; ``vocabulary`` lists the tokens in order of id."""
    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in SPECIAL_TOKENS if token in ids])
    return tokenizer


def find_special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Return the ids of [CLS], [SEP], [MASK], [PAD] and [UNK]. Raises UserError if one is missing."""
    ids = {}
    for token in ("cls", "sep", "mask", "pad", "unk"):
        number = tokenizer.token_to_id(f"[{token.upper()}]")
        if number is None:
            raise UserError(
                f"The tokenizer has no [{token.upper()}] token. FLAVA requires a BERT-style WordPiece tokenizer."
            )
        ids[token] = number
    return SpecialIds(**ids)


def compute_vocabulary_hash(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 hex digest of the vocabulary: all tokens and their ids, in order of id."""
    digest = hashlib.sha256()
    for token, number in sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1]):
        digest.update(f"{number}\t{token}\n".encode())
    return digest.hexdigest()


def build_continuation_table(tokenizer: Tokenizer) -> np.ndarray:
    """Return a (V,) bool table, True for ids that continue a word (``##ing``); ``~table[ids]`` marks word starts."""
    table = np.zeros(tokenizer.get_vocab_size(with_added_tokens=True), dtype=bool)
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        table[number] = token.startswith("##")
    return table
