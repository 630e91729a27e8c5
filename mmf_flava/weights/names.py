"""The keys of FLAVA's weights in four naming styles, and translation between the native style and the others.

Sources: the state dicts of Hugging Face's and torchmultimodal's FLAVA. The weights of the original MMF code were never
published; its keys are from Hugging Face's conversion script.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from mmf_flava.errors import UserError

TEACHER = "teacher.encoder."  # prefix of the teacher's image encoder in the weights of the model flava_dino
STYLES = ("mmf_flava", "hf", "torchmultimodal", "mmf")  # the first one is the native style

# Placeholders in the keys of TABLE and the prefixes that replace them, in the order of STYLES.
PREFIXES = """
@image      flava.image_encoder.       flava.image_model.       model.image_encoder.            image_encoder.module.
@text       flava.text_encoder.        flava.text_model.        model.text_encoder.             text_encoder.module.
@pair       flava.multimodal_encoder.  flava.multimodal_model.  model.mm_encoder.               mm_encoder.module.
@mim        heads.mim.                 mim_head.                loss.mim_loss.cls.              heads.imagenet.mim_head.cls.predictions.
@mlm        heads.mlm.                 mlm_head.                loss.mlm_loss.cls.              heads.fairseq_mlm.cls.predictions.
@mmm_image  heads.mmm_image.           mmm_image_head.          loss.mmm_loss.mim.cls.          heads.cmd.mim_head.cls.predictions.
@mmm_text   heads.mmm_text.            mmm_text_head.           loss.mmm_loss.mlm.cls.          heads.cmd.mlm_head.cls.predictions.
@itm        heads.itm.                 itm_head.                loss.itm_loss.                  heads.cmd.itm_head.
@code       codebook.blocks.           image_codebook.blocks.   image_codebook.encoder.blocks.  image_codebook.blocks.
"""  # noqa: E501
# Placeholders that stand for several placeholders of PREFIXES: a row of TABLE that contains one is repeated for each.
GROUPS = {"@encoder": ("@image", "@text", "@pair"), "@masked": ("@mim", "@mlm", "@mmm_image", "@mmm_text")}

# Syntax: * is "weight" or "bias", # is a number, [n] is the n-th third of a fused tensor along dimension 0, and = is
# Hugging Face's key. Two rows with the same native key are aliases: both keys are written; if both are read, their
# tensors must be equal. The prefix "unused." marks tensors of released files that no code uses; they are kept, so that
# converting a file back and forth loses no tensor.
TABLE = """
native                                                   Hugging Face                                             torchmultimodal                                   MMF
@image.cls_token                                         @image.embeddings.cls_token                              =                                                 =
@image.mask_token                                        @image.embeddings.mask_token                             =                                                 =
@image.pos_embed                                         @image.embeddings.position_embeddings                    =                                                 =
@image.patch_embed.proj.*                                @image.embeddings.patch_embeddings.projection.*          =                                                 =
@text.word_embeddings.weight                             @text.embeddings.word_embeddings.weight                  =                                                 =
@text.position_embeddings.weight                         @text.embeddings.position_embeddings.weight              =                                                 =
@text.token_type_embeddings.weight                       @text.embeddings.token_type_embeddings.weight            =                                                 =
@text.embedding_norm.*                                   @text.embeddings.LayerNorm.*                             @text.embeddings.layer_norm.*                     =
@pair.cls_token                                          @pair.cls_token                                          =                                                 @pair.encoder.cls_token
@pair.image_projection.*                                 flava.image_to_mm_projection.*                           model.image_to_mm_projection.*                    mm_image_projection.*
@pair.text_projection.*                                  flava.text_to_mm_projection.*                            model.text_to_mm_projection.*                     mm_text_projection.*
@encoder.blocks.#.norm1.*                                @encoder.encoder.layer.#.layernorm_before.*              @encoder.encoder.layer.#.attention_layernorm.*    =
@encoder.blocks.#.attn.qkv.*[0]                          @encoder.encoder.layer.#.attention.attention.query.*     @encoder.encoder.layer.#.attention.query.*        =
@encoder.blocks.#.attn.qkv.*[1]                          @encoder.encoder.layer.#.attention.attention.key.*       @encoder.encoder.layer.#.attention.key.*          =
@encoder.blocks.#.attn.qkv.*[2]                          @encoder.encoder.layer.#.attention.attention.value.*     @encoder.encoder.layer.#.attention.value.*        =
@encoder.blocks.#.attn.proj.*                            @encoder.encoder.layer.#.attention.output.dense.*        @encoder.encoder.layer.#.attention.output.*       =
@encoder.blocks.#.norm2.*                                @encoder.encoder.layer.#.layernorm_after.*               @encoder.encoder.layer.#.feedforward_layernorm.*  =
@encoder.blocks.#.mlp.fc1.*                              @encoder.encoder.layer.#.intermediate.dense.*            @encoder.encoder.layer.#.feedforward.model.0.*    =
@encoder.blocks.#.mlp.fc2.*                              @encoder.encoder.layer.#.output.dense.*                  @encoder.encoder.layer.#.feedforward.model.2.*    =
@encoder.norm.*                                          @encoder.layernorm.*                                     =                                                 =
unused.@encoder.pooler.*                                 @encoder.pooler.dense.*                                  =                                                 =
flava.image_projection.*                                 flava.image_projection.*                                 model.image_projection.*                          image_projection.*
flava.text_projection.*                                  flava.text_projection.*                                  model.text_projection.*                           text_projection.*
flava.logit_scale                                        flava.logit_scale                                        loss.contrastive_loss.logit_scale                 heads.cmd.clip_head.logit_scale
@masked.dense.*                                          @masked.transform.dense.*                                @masked.dense.*                                   =
@masked.norm.*                                           @masked.transform.LayerNorm.*                            @masked.layer_norm.*                              =
@masked.decoder.*                                        @masked.decoder.*                                        =                                                 =
@masked.decoder.bias                                     @masked.bias                                             =                                                 =
@itm.pooler.*                                            @itm.pooler.dense.*                                      =                                                 =
@itm.classifier.*                                        @itm.seq_relationship.*                                  @itm.cls.seq_relationship.*                       @itm.cls.seq_relationship.*
@code.input.weight                                       @code.input.weight                                       @code.input.w                                     =
@code.input.bias                                         @code.input.bias                                         @code.input.b                                     =
@code.group_#.group.block_#.id_path.weight               @code.group_#.group.block_#.id_path.weight               @code.group_#.block_#.id_path.w                   =
@code.group_#.group.block_#.id_path.bias                 @code.group_#.group.block_#.id_path.bias                 @code.group_#.block_#.id_path.b                   =
@code.group_#.group.block_#.res_path.path.conv_#.weight  @code.group_#.group.block_#.res_path.path.conv_#.weight  @code.group_#.block_#.res_path.conv_#.w           =
@code.group_#.group.block_#.res_path.path.conv_#.bias    @code.group_#.group.block_#.res_path.path.conv_#.bias    @code.group_#.block_#.res_path.conv_#.b           =
@code.output.conv.weight                                 @code.output.conv.weight                                 @code.output.conv.w                               =
@code.output.conv.bias                                   @code.output.conv.bias                                   @code.output.conv.b                               =
"""  # noqa: E501

# prefix of the core model in a complete model; files of the core model alone omit it
CORE_PREFIX = {"mmf_flava": "flava.", "hf": "flava.", "torchmultimodal": "model.", "mmf": ""}
THIRD = re.compile(r"\[(\d)]$")
WRAPPERS = ("module.", "_orig_mod.")  # prefixes added by DistributedDataParallel and torch.compile
BUFFERS = re.compile(r"(^|\.)(position_ids|token_type_ids)$")  # saved by older versions of the libraries; not needed
# files of the original MMF code contain the embeddings twice, with and without ".module."
DUPLICATES = re.compile(r"^(text|image)_encoder\.embeddings\.")


@dataclass(frozen=True)
class KeyMapping:
    """A pattern of mmf_flava's keys and the corresponding pattern of another naming style: one row of TABLE.

    third: 0, 1 or 2 if the tensor is the query, key or value part of mmf_flava's fused qkv tensor; None if it is not.
    """

    native: str
    foreign: str
    third: int | None

    def to_native(self, key: str) -> str | None:
        return _rename(key, self.foreign, self.native)

    def from_native(self, key: str) -> str | None:
        return _rename(key, self.native, self.foreign)


@dataclass
class Translation:
    """Weights that were translated to mmf_flava's keys.

    style: naming style of the source keys.
    tensors: mmf_flava's key -> tensor; the keys of tensors that no code uses start with ``unused.``.
    unknown: source keys that are not in the table, or belong to an incomplete set of query, key and value.
    ignored: source keys of buffers and duplicates, which no model needs.
    """

    style: str
    tensors: dict[str, Tensor]
    unknown: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


@cache
def key_mappings(style: str) -> tuple[KeyMapping, ...]:
    """Return the key mappings of a naming style: the rows of TABLE with all placeholders expanded."""
    prefixes = {line.split()[0]: line.split()[1:] for line in PREFIXES.strip().splitlines()}
    column = STYLES.index(style)
    mappings: list[KeyMapping] = []
    for line in TABLE.strip().splitlines()[1:]:
        cells = [line.split()[1] if cell == "=" else cell for cell in line.split()]
        group = next((group for group in GROUPS if any(group in cell for cell in cells)), None)
        for member in GROUPS[group] if group else ("",):
            native, foreign = (cells[i].replace(group, member) if group else cells[i] for i in (0, column))
            third = THIRD.search(native)
            for name, columns in prefixes.items():
                native = native.replace(f"{name}.", columns[0])
                foreign = foreign.replace(f"{name}.", columns[column])
            mappings.append(KeyMapping(THIRD.sub("", native), THIRD.sub("", foreign), int(third[1]) if third else None))
    return tuple(mappings)


def detect_style(keys: Iterable[str], source: str = "the file") -> tuple[str, dict[str, str]]:
    """Detect the naming style of a file's keys.

    Returns:
        The style, and a mapping from each matched key to its complete form (see ``complete_key``).

    Raises:
        UserError: no style matches at least half of the keys.
    """
    source_keys = [key for key in keys if not BUFFERS.search(key)]
    matches = {
        style: {key: full for key in source_keys if (full := complete_key(key, style)) is not None} for style in STYLES
    }
    style = max(STYLES, key=lambda style: len(matches[style]))
    if len(matches[style]) * 2 < len(source_keys) or not source_keys:
        if any(key.startswith(TEACHER) for key in source_keys):
            raise UserError(
                f"{source} has the weights of a flava_dino, an image encoder without FLAVA's other modules. Set "
                "image_encoder.pretrained to it, or convert it with --to timm or --to dino."
            )
        raise UserError(
            f"{source} has no FLAVA weights. Expected keys of mmf_flava, Hugging Face, torchmultimodal or the original "
            f"MMF code, got {', '.join(source_keys[:3]) or 'no tensors'}{', ...' if len(source_keys) > 3 else ''}."
        )
    return style, matches[style]


def complete_key(key: str, style: str) -> str | None:
    """Return the form that a key has in a complete model, or None if the key is unknown in this style.

    Prefixes of DistributedDataParallel and torch.compile are removed, and the prefix of the core model is added.
    """
    for wrapper in WRAPPERS:
        key = key.removeprefix(wrapper)
    for prefix in ("", CORE_PREFIX[style]):
        full = prefix + key
        if style == "mmf_flava" and full.startswith("codebook."):  # TABLE has no k-means codebook: other styles lack it
            return full
        if any(_pattern(mapping.foreign).fullmatch(full) for mapping in _candidates(style, full)):
            return full
    return None


def to_native(tensors: dict[str, Tensor], source: str = "the file") -> Translation:
    """Translate weights of any naming style to mmf_flava's keys.

    Query, key and value are concatenated into one tensor. Dtypes do not change. Keys of tensors that are not translated
    are listed in ``unknown`` or ``ignored``.

    Raises:
        UserError: the keys do not follow any supported style.
    """
    style, complete_keys = detect_style(tensors, source)
    result = Translation(style, {})
    thirds: dict[str, dict[int, str]] = {}
    for key, tensor in tensors.items():
        full = complete_keys.get(key)
        if full is None:
            ignored = BUFFERS.search(key) or (style == "mmf" and DUPLICATES.match(key))
            (result.ignored if ignored else result.unknown).append(key)
            continue
        if style == "mmf_flava":
            result.tensors[full] = tensor
            continue
        mapping = next(mapping for mapping in _candidates(style, full) if mapping.to_native(full) is not None)
        native = mapping.to_native(full)
        assert native is not None
        if mapping.third is not None:
            thirds.setdefault(native, {})[mapping.third] = key
        elif native in result.tensors and not torch.equal(result.tensors[native], tensor):
            result.unknown.append(key)  # an alias with different values
        else:
            result.tensors[native] = tensor
    for native, keys in thirds.items():
        members = [tensors[keys[i]] for i in sorted(keys)]
        if len(members) == 3 and len({member.shape for member in members}) == 1:
            result.tensors[native] = torch.cat(members)
        else:
            result.unknown += keys.values()
    return result


def from_native(tensors: dict[str, Tensor], style: str) -> tuple[dict[str, Tensor], list[str]]:
    """Translate weights from mmf_flava's keys to another naming style.

    Returns:
        The tensors under the keys of ``style``, and the keys of ``tensors`` that ``style`` does not have. The returned
        tensors do not share memory.
    """
    if style == "mmf_flava":
        return {key: tensor.contiguous() for key, tensor in tensors.items()}, []
    translated: dict[str, Tensor] = {}
    untranslated: list[str] = []
    for key, tensor in tensors.items():
        matching = [mapping for mapping in _candidates(style, key, native=True) if mapping.from_native(key) is not None]
        for mapping in matching:
            foreign = mapping.from_native(key)
            assert foreign is not None
            value = tensor if mapping.third is None else tensor.chunk(3)[mapping.third]
            shared = mapping.third is not None or len(matching) > 1  # safetensors rejects tensors that share memory
            translated[foreign] = value.clone() if shared else value.contiguous()
        if not matching:
            untranslated.append(key)
    return translated, untranslated


@cache
def _mappings_by_prefix(style: str, native: bool) -> dict[str, tuple[KeyMapping, ...]]:
    """Return the key mappings of a naming style, grouped by key prefix.

    Matching each of the 618 keys of a model against all patterns would take 1 s.
    """
    found: dict[str, list[KeyMapping]] = {}
    for mapping in key_mappings(style):
        found.setdefault(_key_prefix(mapping.native if native else mapping.foreign), []).append(mapping)
    return {prefix: tuple(members) for prefix, members in found.items()}


def _key_prefix(key: str) -> str:
    return ".".join(key.split(".")[:2]) if key.count(".") > 1 else key.split(".")[0]


def _candidates(style: str, key: str, native: bool = False) -> tuple[KeyMapping, ...]:
    table = _mappings_by_prefix(style, native)
    return table.get(_key_prefix(key), ()) + table.get(key.split(".")[0], ())


def _rename(key: str, source: str, target: str) -> str | None:
    match = _pattern(source).fullmatch(key)
    if match is None:
        return None
    groups = iter(match.groups())
    return re.sub(r"[#*]", lambda _: next(groups), target)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\#", r"(\d+)").replace(r"\*", "(weight|bias)"))
