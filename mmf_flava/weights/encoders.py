"""Loading of a single encoder from a ViT (timm, DINO, BEiT, Hugging Face), a pre-norm text encoder, a FLAVA checkpoint
or a checkpoint of ``flava_dino``.

mmf_flava's keys of the image encoder are timm's keys. Keys of tensors that the encoder does not have are reported as
unexpected keys.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from mmf_flava.errors import UserError
from mmf_flava.files.checkpoint_names import read_found
from mmf_flava.weights.configs import read_image_heads
from mmf_flava.weights.loading import (
    IncompatibleKeys,
    check_image_heads,
    drop_vocabulary,
    load_tensors,
    matches_any,
    resample_positions,
)
from mmf_flava.weights.names import PREFIXES, STYLES, TEACHER, complete_key, to_native
from mmf_flava.weights.sources import find_weights
from mmf_flava.weights.weight_files import read_tensors

# prefixes of the encoder's keys in checkpoints of timm, DINO, BEiT, BERT and RoBERTa
WRAPPERS = re.compile(
    r"^(module\.|_orig_mod\.|backbone\.|vit\.|beit\.|bert\.|roberta\.|roberta_prelayernorm\.|visual\.|encoder\.(?=blocks\.))"
)
# keys that are not loaded: heads of other tasks, and buffers that the model creates itself
HEADS_AND_BUFFERS = re.compile(
    r"^(head|head_dist|lm_head|mlm_head|cls|classifier|pre_logits|pooler|fc|prediction_head)\.|^(bias|dino_loss\..*)$"
    r"|relative_position_index$|(^|\.)(position_ids|token_type_ids)$"
)

# columns: mmf_flava's key and BERT's key; attention and LayerNorm keys are named as in RoBERTa-PreLayerNorm
BERT_TABLE = """
word_embeddings.weight        embeddings.word_embeddings.weight
position_embeddings.weight    embeddings.position_embeddings.weight
token_type_embeddings.weight  embeddings.token_type_embeddings.weight
embedding_norm.*              embeddings.LayerNorm.*
blocks.#.norm1.*              encoder.layer.#.attention.LayerNorm.*
blocks.#.attn.qkv.*[0]        encoder.layer.#.attention.self.query.*
blocks.#.attn.qkv.*[1]        encoder.layer.#.attention.self.key.*
blocks.#.attn.qkv.*[2]        encoder.layer.#.attention.self.value.*
blocks.#.attn.proj.*          encoder.layer.#.attention.output.dense.*
blocks.#.norm2.*              encoder.layer.#.intermediate.LayerNorm.*
blocks.#.mlp.fc1.*            encoder.layer.#.intermediate.dense.*
blocks.#.mlp.fc2.*            encoder.layer.#.output.dense.*
norm.*                        LayerNorm.*
"""
POST_NORM = re.compile(r"^encoder\.layer\.\d+\.(attention\.)?output\.LayerNorm\.")


def load_image_encoder(
    encoder: nn.Module,
    source: str | Path,
    *,
    allow_missing: Iterable[str] = (),
    allow_extra: Iterable[str] = (),
    sha256: str | None = None,
    cache_dir: str | Path | None = None,
) -> IncompatibleKeys:
    """Load an ``ImageEncoder`` in place from a ViT (timm, DINO, BEiT, Hugging Face), FLAVA or ``flava_dino``'s teacher.

    The mask token may be missing. FLAVA paper, §3.3: "we initialise from an off-the-shelf DINO model".

    Args:
        source, sha256, cache_dir: see ``sources.find_weights``.
        allow_missing, allow_extra: see ``loading.compare_keys``.

    Raises:
        UserError: the source was not found, its file is corrupt or contains pickled code, or the weights do not
            match the encoder.
    """
    tensors, metadata = read_found(lambda: find_weights(source, cache_dir, sha256), read_tensors)
    native, unknown = _image_encoder_tensors(tensors, str(source))
    heads = encoder.blocks[0].attn.num_heads  # type: ignore[index, union-attr]
    check_image_heads(heads, read_image_heads(metadata), str(source), "image_encoder")
    resample_positions(native, encoder.state_dict(), "pos_embed")
    allow_missing = [*allow_missing, "mask_token"]
    return load_tensors(encoder, native, str(source), "the image encoder", unknown, allow_missing, allow_extra)


def load_text_encoder(
    encoder: nn.Module,
    source: str | Path,
    *,
    allow_missing: Iterable[str] = (),
    allow_extra: Iterable[str] = (),
    sha256: str | None = None,
    cache_dir: str | Path | None = None,
    new_vocabulary: bool = False,
) -> IncompatibleKeys:
    """Load a ``TextEncoder`` in place from a FLAVA checkpoint or a pre-norm encoder (RoBERTa-PreLayerNorm).

    Args:
        source, sha256, cache_dir: see ``sources.find_weights``.
        allow_missing, allow_extra: see ``loading.compare_keys``.
        new_vocabulary: see ``loading.drop_vocabulary``.

    Raises:
        UserError: see ``load_image_encoder``; also raised for post-norm encoders such as BERT and RoBERTa.
    """
    tensors, _ = read_found(lambda: find_weights(source, cache_dir, sha256), read_tensors)
    native, unknown = _text_encoder_tensors(tensors, str(source))
    allow_missing, allow_extra = list(allow_missing), list(allow_extra)
    if new_vocabulary:
        drop_vocabulary(native, allow_missing)
    if any(POST_NORM.match(key) and not matches_any(key, allow_extra) for key in unknown):
        raise UserError(
            f"{source} is a post-norm encoder like BERT and RoBERTa, but FLAVA's text encoder is pre-norm. Use a "
            "pre-norm encoder such as RoBERTa-PreLayerNorm. To load all weights except the LayerNorms, set "
            "allow_extra: ['*.output.LayerNorm.*'] and allow_missing: ['blocks.*.norm*', 'norm.*']."
        )
    return load_tensors(encoder, native, str(source), "the text encoder", unknown, allow_missing, allow_extra)


def _image_encoder_tensors(tensors: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Translate a ViT's tensors to the image encoder's keys; return them and the unknown keys.

    BEiT's query and value biases are concatenated into one qkv bias. Layer scale is folded into the preceding linear
    layer. Relative position bias tables, which FLAVA's attention does not support, are reported as unexpected keys.

    Raises:
        UserError: the keys do not belong to a ViT.
    """
    if teacher := {key.removeprefix(TEACHER): value for key, value in tensors.items() if key.startswith(TEACHER)}:
        return teacher, []
    stripped = _strip(tensors)
    if not any(key.startswith("blocks.") for key in stripped):
        return _extract_encoder(stripped, "image_encoder", "@image", source)
    native = _fold_layer_scale(_join_biases(stripped))
    known = re.compile(r"^(cls_token|mask_token|pos_embed|patch_embed\.proj\.|norm\.|blocks\.\d+\.(norm|attn|mlp))")
    unknown = [key for key in native if not known.match(key)]
    return {key: value for key, value in native.items() if known.match(key)}, unknown


def _text_encoder_tensors(tensors: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Translate a pre-norm text encoder's tensors to the text encoder's keys; return them and the unknown keys.

    Raises:
        UserError: the keys do not belong to a text encoder.
    """
    stripped = _strip(tensors)
    if not any(".attention.self." in key for key in stripped):
        return _extract_encoder(stripped, "text_encoder", "@text", source)
    stripped = {re.sub(r"LayerNorm\.(gamma|beta)$", _rename_norm, key): value for key, value in stripped.items()}
    native: dict[str, Tensor] = {}
    used: set[str] = set()
    thirds: dict[str, dict[int, str]] = {}
    for native_key, bert_key in (line.split() for line in BERT_TABLE.strip().splitlines()):
        third = re.search(r"\[(\d)]$", native_key)
        pattern = re.compile(re.escape(bert_key).replace(r"\#", r"(\d+)").replace(r"\*", "(weight|bias)"))
        for key, value in stripped.items():
            if match := pattern.fullmatch(key):
                words = iter(match.groups())
                name = re.sub(r"[#*]", lambda _, words=words: next(words), re.sub(r"\[\d]$", "", native_key))  # type: ignore[misc]
                used.add(key)
                if third:
                    thirds.setdefault(name, {})[int(third[1])] = key
                else:
                    native[name] = value
    for name, keys in thirds.items():
        if len(keys) == 3:
            native[name] = torch.cat([stripped[keys[i]] for i in range(3)])
        else:
            used -= set(keys.values())
    return _drop_reserved_positions(native, tensors), [key for key in stripped if key not in used]


def _strip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the encoder's prefix from the keys, and drop buffers and the heads of other tasks."""
    stripped: dict[str, Tensor] = {}
    for key, value in tensors.items():
        while match := WRAPPERS.match(key):
            key = key[match.end() :]
        if not HEADS_AND_BUFFERS.search(key):
            stripped[key] = value
    return stripped


def _extract_encoder(
    tensors: dict[str, Tensor], encoder: str, prefix: str, source: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Extract one encoder from the weights of a complete FLAVA model or of the encoder alone, in any naming style.

    Returns:
        The encoder's tensors under mmf_flava's keys, and the keys that could not be translated.
    """
    prefix = _missing_prefix(tensors, prefix)
    translation = to_native({prefix + key: value for key, value in tensors.items()}, source)
    start = f"flava.{encoder}."
    native = {key[len(start) :]: value for key, value in translation.tensors.items() if key.startswith(start)}
    if not native:
        raise UserError(f"{source} has no {encoder.replace('_', ' ')}. Use weights that contain this encoder.")
    return native, translation.unknown


def _missing_prefix(keys: Iterable[str], encoder: str) -> str:
    """Return the prefix that an encoder's keys have in a FLAVA model but not in ``keys``; "" if no prefix fits.

    Args:
        encoder: placeholder of the encoder in ``names.PREFIXES``: ``@image`` or ``@text``.
    """
    keys = list(keys)
    columns = next(line.split()[1:] for line in PREFIXES.strip().splitlines() if line.startswith(f"{encoder} "))
    hits = {
        prefix: sum(complete_key(prefix + key, style) is not None for key in keys)
        for style, prefix in zip(STYLES, columns, strict=True)
    }
    best = max(hits, key=lambda prefix: hits[prefix])
    return best if hits[best] else ""


def _join_biases(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Concatenate BEiT's q_bias and v_bias into qkv.bias; the bias of the keys, which BEiT does not have, is 0."""
    joined = dict(tensors)
    for key in tensors:
        if key.endswith(".attn.q_bias") and (other := f"{key[:-6]}v_bias") in tensors:
            query, value = joined.pop(key), joined.pop(other)
            joined[f"{key[:-6]}qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    return joined


def _fold_layer_scale(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold layer scale into the preceding linear layer: gamma * (W x + b) = (gamma W) x + gamma b.

    The keys of gamma are gamma_1 and gamma_2 in BEiT, and ls1.gamma and ls2.gamma in timm.
    """
    folded = dict(tensors)
    for key, gamma in tensors.items():
        match = re.fullmatch(r"(blocks\.\d+)\.(?:gamma_|ls)([12])(?:\.gamma)?", key)
        if match is None:
            continue
        layer = f"{match[1]}.{'attn.proj' if match[2] == '1' else 'mlp.fc2'}"
        if f"{layer}.weight" in folded and f"{layer}.bias" in folded:
            folded[f"{layer}.weight"] = gamma[:, None] * folded[f"{layer}.weight"]
            folded[f"{layer}.bias"] = gamma * folded[f"{layer}.bias"]
            del folded[key]
    return folded


def _rename_norm(match: re.Match[str]) -> str:
    return f"LayerNorm.{'weight' if match[1] == 'gamma' else 'bias'}"


def _drop_reserved_positions(native: dict[str, Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop RoBERTa's first two position embeddings, which are reserved: the first token has position 2."""
    table = native.get("position_embeddings.weight")
    if table is not None and len(table) % 8 == 2 and any("roberta" in key for key in tensors):
        native["position_embeddings.weight"] = table[2:]
    return native
