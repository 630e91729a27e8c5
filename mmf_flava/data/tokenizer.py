"""WordPiece tokenizers: loading, ids of the special tokens, and a hash of the vocabulary."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from mmf_flava.data.preparation_commands import tokenizer_command
from mmf_flava.errors import UserError
from mmf_flava.files.hub import NAME, download_from_hub
from mmf_flava.files.json_data import parse_object

SETTINGS = "tokenizer_config.json"
SETTINGS_TEXT = "The QUICK fox's naïve café, 北京 3.14 <b> co-op\n\t end"
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
    """Load a tokenizer from a local folder or the Hugging Face hub, with truncation and padding disabled.

    Args:
        name_or_path: folder with ``tokenizer.json`` or ``vocab.txt`` (BERT), or a Hugging Face model ID.
            In a folder, ``do_lower_case`` in ``tokenizer_config.json`` determines whether texts are lower-cased. If it
            is missing, tokenizers from ``vocab.txt`` lower-case texts unless the vocabulary has upper-case letters.

    Raises:
        UserError: the folder has no tokenizer, a file is invalid, or the tokenizer cannot be loaded from the hub.
    """
    folder, name = Path(name_or_path).expanduser(), str(name_or_path)
    if folder.is_file():
        raise UserError(f"The tokenizer {name} is a file. Set it to the folder with tokenizer.json or vocab.txt.")
    if not folder.exists():
        if name.startswith(("/", ".", "~")) or not NAME.fullmatch(name):
            raise UserError(
                f"The tokenizer folder {name} does not exist. Correct the path, or create it with "
                f"`{tokenizer_command(folder)}`."
            )
        folder = _download(name)
    if folder.is_dir():
        settings = _read_settings(folder / SETTINGS)
        if (folder / "tokenizer.json").is_file():
            file = folder / "tokenizer.json"
            return parse_tokenizer(_read_text(file), str(file), settings)
        if (folder / "vocab.txt").is_file():
            vocabulary = _read_text(folder / "vocab.txt").rstrip("\n").split("\n")
            return build_wordpiece(vocabulary, settings.get("do_lower_case"))
    raise UserError(
        f"{folder} has no tokenizer. Expected tokenizer.json or vocab.txt. "
        f"Create it with `{tokenizer_command(folder)}`."
    )


def _download(name: str) -> Path:
    """Return the folder of a tokenizer's files in the cache of huggingface_hub."""
    try:
        files = download_from_hub(name, SETTINGS, "tokenizer.json", "vocab.txt")
    except UserError as error:
        raise UserError(
            f"The tokenizer {name!r} is not a local folder. {error} Or create it with `{tokenizer_command(name)}`."
        ) from None
    if not any(file.name in ("tokenizer.json", "vocab.txt") for file in files):
        raise UserError(
            f"The Hugging Face repository {name} has neither tokenizer.json nor vocab.txt. Set the tokenizer to a "
            "folder with one of them, or to another model ID."
        )
    return files[0].parent


def parse_tokenizer(text: str, where: str, settings: dict[str, Any] | None = None) -> Tokenizer:
    """Build a tokenizer from the content of a ``tokenizer.json``, with truncation and padding disabled.

    Args:
        where: location of the content, used in error messages.
        settings: content of ``tokenizer_config.json``; ``do_lower_case`` overrides the normalizer's ``lowercase``.

    Raises:
        UserError: the content is invalid.
    """
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers does not raise a more specific type
        raise UserError(
            f"{where} is not a valid tokenizer.json ({error}). Download or save the tokenizer again."
        ) from None
    lowercase = (settings or {}).get("do_lower_case")
    if lowercase is not None and isinstance(normalizer := tokenizer.normalizer, normalizers.BertNormalizer):
        normalizer.lowercase = bool(lowercase)
        tokenizer.normalizer = normalizer
    return _complete_texts(tokenizer)


def _complete_texts(tokenizer: Tokenizer) -> Tokenizer:
    """Disable truncation and padding, which ``tokenizer.json`` may enable. The text processors truncate and pad."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_settings(file: Path) -> dict[str, Any]:
    """Return the content of ``tokenizer_config.json``, or an empty dict if the file does not exist."""
    if not file.is_file():
        return {}
    text = _read_text(file)
    try:
        return parse_object(text)
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON ({error}). Download or save the tokenizer again.") from None


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file}: failed to read the file as UTF-8 text ({error}). Download or save the tokenizer again."
        ) from None


def build_wordpiece(vocabulary: list[str], lowercase: bool | None = None) -> Tokenizer:
    """Build a WordPiece tokenizer with the normalisation and word splitting of BERT.

    Args:
        vocabulary: the tokens in order of id.
        lowercase: whether to lower-case texts and remove accents; default: True unless the vocabulary has upper-case
            letters.
    """
    if lowercase is None:
        lowercase = not any("A" <= char <= "Z" for token in vocabulary if not token.startswith("[") for char in token)
    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in SPECIAL_TOKENS if token in ids])
    return tokenizer


def find_special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Return the ids of [CLS], [SEP], [MASK], [PAD] and [UNK]. Raises UserError if a token is missing."""
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


def compute_settings_hash(tokenizer: Tokenizer) -> str:
    """Return the SHA-256 hex digest of a text as the tokenizer normalises and divides it, and of its ids.

    It does not depend on the version of the tokenizers library, unlike the tokenizer's JSON.
    """
    text, words = SETTINGS_TEXT, None
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer is not None:
        words = tokenizer.pre_tokenizer.pre_tokenize_str(text)
    ids = tokenizer.encode(SETTINGS_TEXT, add_special_tokens=False).ids
    return hashlib.sha256(str((text, words, ids)).encode()).hexdigest()


def build_continuation_table(tokenizer: Tokenizer) -> np.ndarray:
    """Return a bool array with one value per token id: whether the token continues a word, such as ``##ing``."""
    table = np.zeros(tokenizer.get_vocab_size(with_added_tokens=True), dtype=bool)
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        table[number] = token.startswith("##")
    return table
