"""One encoder from other people's weights: ViTs (timm, DINO, BEiT, Hugging Face) and BERTs, under our encoder's names.

Our image encoder's names are timm's. What our encoder cannot hold stays under its own name and is reported as unknown.
"""

import re

import torch
from torch import Tensor

from mmf_flava.errors import UserError
from mmf_flava.weights.names import encoder_prefix, to_ours

# around a backbone in the files of timm, DINO, BEiT, BERT and RoBERTa
PREFIXES = re.compile(
    r"^(module\.|_orig_mod\.|backbone\.|vit\.|beit\.|bert\.|roberta\.|roberta_prelayernorm\.|visual\.|encoder\.(?=blocks\.))"
)
# what other tasks put on top of a backbone, and tables that are made anew
TOPS = re.compile(
    r"^(head|head_dist|lm_head|mlm_head|cls|classifier|pre_logits|pooler|fc|prediction_head)\.|^(bias|dino_loss\..*)$"
    r"|relative_position_index$|(^|\.)(position_ids|token_type_ids)$"
)

# ours and BERT's, the attention and the pre-norms as RoBERTa-PreLayerNorm has them
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


def image_encoder_tensors(tensors: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """A ViT's tensors under the names of our image encoder, and the names that nobody knows.

    BEiT's separate query and value biases become one bias (its keys have none), layer scale is folded into the layer
    that it scales. Tables of relative position biases stay unknown: our attention has no place for them.

    Raises:
        UserError: the keys are those of no ViT.
    """
    given = _stripped(tensors)
    if not any(key.startswith("blocks.") for key in given):
        return _flava_part(given, "image_encoder", "@image", source)
    given = _fold_layer_scale(_join_biases(given))
    known = re.compile(r"^(cls_token|mask_token|pos_embed|patch_embed\.proj\.|norm\.|blocks\.\d+\.(norm|attn|mlp))")
    unknown = [key for key in given if not known.match(key)]
    return {key: value for key, value in given.items() if known.match(key)}, unknown


def text_encoder_tensors(tensors: dict[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """A pre-norm text encoder's tensors under the names of ours, and the names that nobody knows.

    Raises:
        UserError: the keys are those of no text encoder.
    """
    given = _stripped(tensors)
    if not any(".attention.self." in key for key in given):
        return _flava_part(given, "text_encoder", "@text", source)
    given = {re.sub(r"LayerNorm\.(gamma|beta)$", _modern, key): value for key, value in given.items()}
    rows = [line.split() for line in BERT_TABLE.strip().splitlines()]
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    thirds: dict[str, dict[int, str]] = {}
    for ours, theirs in rows:
        part = re.search(r"\[(\d)]$", ours)
        pattern = re.compile(re.escape(theirs).replace(r"\#", r"(\d+)").replace(r"\*", "(weight|bias)"))
        for key, value in given.items():
            if match := pattern.fullmatch(key):
                words = iter(match.groups())
                name = re.sub(r"[#*]", lambda _, words=words: next(words), re.sub(r"\[\d]$", "", ours))  # type: ignore[misc]
                used.add(key)
                if part:
                    thirds.setdefault(name, {})[int(part[1])] = key
                else:
                    found[name] = value
    for name, keys in thirds.items():
        if len(keys) == 3:
            found[name] = torch.cat([given[keys[i]] for i in range(3)])
        else:
            used -= set(keys.values())
    return _drop_reserved_positions(found, tensors), [key for key in given if key not in used]


def is_post_norm(unknown: list[str]) -> bool:
    """Whether names that nobody knew are the LayerNorms of BERT's post-norm layers."""
    return any(POST_NORM.match(key) for key in unknown)


def _stripped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys without what a wrapper put in front of them, and without other tasks' tops."""
    stripped: dict[str, Tensor] = {}
    for key, value in tensors.items():
        while match := PREFIXES.match(key):
            key = key[match.end() :]
        if not TOPS.search(key):
            stripped[key] = value
    return stripped


def _flava_part(
    given: dict[str, Tensor], encoder: str, prefix: str, source: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder out of a whole FLAVA, or a file of that encoder alone, in any of the four styles."""
    front = encoder_prefix(given, prefix)
    translated = to_ours({front + key: value for key, value in given.items()} if front else given, source)
    start = f"flava.{encoder}."
    part = {key[len(start) :]: value for key, value in translated.tensors.items() if key.startswith(start)}
    if not part:
        raise UserError(f"{source} holds no {encoder.replace('_', ' ')}.")
    return part, translated.unknown


def _join_biases(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """BEiT: q_bias and v_bias beside a qkv without bias; the keys' bias is zero."""
    joined = dict(given)
    for key in given:
        if key.endswith(".attn.q_bias") and (other := f"{key[:-6]}v_bias") in given:
            query, value = joined.pop(key), joined.pop(other)
            joined[f"{key[:-6]}qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    return joined


def _fold_layer_scale(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """gamma * (W x + b) = (gamma W) x + gamma b: BEiT's gamma_1 and gamma_2, timm's ls1.gamma and ls2.gamma."""
    folded = dict(given)
    for key, gamma in given.items():
        match = re.fullmatch(r"(blocks\.\d+)\.(?:gamma_|ls)([12])(?:\.gamma)?", key)
        if match is None:
            continue
        layer = f"{match[1]}.{'attn.proj' if match[2] == '1' else 'mlp.fc2'}"
        if f"{layer}.weight" in folded and f"{layer}.bias" in folded:
            folded[f"{layer}.weight"] = gamma[:, None] * folded[f"{layer}.weight"]
            folded[f"{layer}.bias"] = gamma * folded[f"{layer}.bias"]
            del folded[key]
    return folded


def _modern(match: re.Match[str]) -> str:
    return f"LayerNorm.{'weight' if match[1] == 'gamma' else 'bias'}"


def _drop_reserved_positions(found: dict[str, Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """RoBERTa counts positions from 2; its first two rows are never used for a token."""
    table = found.get("position_embeddings.weight")
    if table is not None and len(table) % 8 == 2 and any("roberta" in key for key in tensors):
        found["position_embeddings.weight"] = table[2:]
    return found
