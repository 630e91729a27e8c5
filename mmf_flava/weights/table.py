"""The one table of key names, which drives reading and writing in every direction; ``names`` applies it.

Sources: both public implementations' state dicts; for the original MMF code, whose files were never published, Hugging
Face's conversion script.
"""

import re
from dataclasses import dataclass
from functools import cache

STYLES = ("mmf_flava", "hf", "torchmultimodal", "mmf")
TITLES = dict(zip(STYLES, ("ours", "Hugging Face's", "torchmultimodal's", "the original MMF code's"), strict=True))

# @name in a row stands for the prefix of its column here; @encoder and @masked for three and four of them.
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
GROUPS = {"@encoder": ("@image", "@text", "@pair"), "@masked": ("@mim", "@mlm", "@mmm_image", "@mmm_text")}

# *: weight or bias. #: a number. [n]: the n-th third of a fused tensor along its first dimension. =: as Hugging Face's.
# A second row for the same name of ours is an alias: both are written, and read they must hold the same.
# unused.: what the released files hold and no code uses; kept, so that a round trip loses nothing.
TABLE = """
ours                                                     Hugging Face                                             torchmultimodal                                   MMF
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


@dataclass(frozen=True)
class Row:
    """One row for one style: patterns and templates both ways; ``part`` is the third of a fused tensor, or None."""

    ours: str
    theirs: str
    part: int | None

    def our_name(self, key: str) -> str | None:
        return _rename(key, self.theirs, self.ours)

    def their_name(self, key: str) -> str | None:
        return _rename(key, self.ours, self.theirs)


@cache
def rows(style: str) -> tuple[Row, ...]:
    """The table for one style, prefixes and groups written out."""
    prefixes = {line.split()[0]: line.split()[1:] for line in PREFIXES.strip().splitlines()}
    column = STYLES.index(style)
    written: list[Row] = []
    for line in TABLE.strip().splitlines()[1:]:
        cells = line.split()
        cells[2] = cells[1] if cells[2] == "=" else cells[2]
        # the original MMF code calls everything inside its modules as Hugging Face does
        cells[3] = cells[1] if cells[3] == "=" else cells[3]
        group = next((group for group in GROUPS if any(group in cell for cell in cells)), None)
        for member in GROUPS[group] if group else ("",):
            ours, theirs = (cells[i].replace(group, member) if group else cells[i] for i in (0, column))
            part = re.search(r"\[(\d)]$", ours)
            for name, columns in prefixes.items():
                ours, theirs = ours.replace(f"{name}.", columns[0]), theirs.replace(f"{name}.", columns[column])
            cut = re.compile(r"\[\d]$")
            written.append(Row(cut.sub("", ours), cut.sub("", theirs), int(part[1]) if part else None))
    return tuple(written)


def _rename(key: str, source: str, target: str) -> str | None:
    match = pattern(source).fullmatch(key)
    if match is None:
        return None
    found = iter(match.groups())
    return re.sub(r"[#*]", lambda _: next(found), target)


@cache
def pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\#", r"(\d+)").replace(r"\*", "(weight|bias)"))
