"""The image encoder: a ViT whose masked patches are replaced by a learned mask token (FLAVA paper, §3.1, §3.2).

Shapes: B = batch size, C = channels, H = image height, W = image width, P = number of patches, D = hidden size.
"""

import torch
from timm.layers import PatchEmbed, resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mmf_flava.config.model import ImageEncoderConfig
from mmf_flava.models.transformer import EncodedViews, Queries, Transformer


class ImageEncoder(Transformer):
    """A ViT with learned position embeddings and [CLS] as position 0. The parameter names are those of timm's ViT.

    Args:
        has_mask_token: False for an encoder whose patches are never masked.
    """

    def __init__(self, config: ImageEncoderConfig, has_mask_token: bool = True) -> None:
        super().__init__(config)
        self.patch_embed = PatchEmbed(
            config.image_size, config.patch_size, embed_dim=config.hidden_size, strict_img_size=False
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        if has_mask_token:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.patch_embed.num_patches, config.hidden_size))
        self.position_interpolation = config.position_interpolation

    def embed(self, image_BCHW: Tensor) -> Tensor:
        """Return the (B, number of patches, D) patch embeddings, without position embeddings."""
        return self.patch_embed(image_BCHW.to(self.patch_embed.proj.weight.dtype))

    def mask(self, patches_BPD: Tensor, patch_mask_BP: Tensor) -> Tensor:
        """Replace the embeddings of masked patches (True in ``patch_mask_BP``) with the mask token."""
        return torch.where(patch_mask_BP[..., None], self.mask_token.to(patches_BPD.dtype), patches_BPD)

    def sequence(self, patches_BPD: Tensor, grid: tuple[int, int]) -> Tensor:
        """Prepend [CLS] to the patch embeddings and add the position embeddings of ``grid``, see ``positions``."""
        cls = self.cls_token.expand(patches_BPD.shape[0], -1, -1).to(patches_BPD.dtype)
        return torch.cat([cls, patches_BPD], dim=1) + self.positions(grid)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Return the (1, 1 + number of patches, D) position embeddings of a grid of patches.

        If ``grid`` (rows and columns of patches) differs from the grid for ``image_size``, they are interpolated:
        bicubic, without antialiasing. ``position_interpolation: flava`` interpolates to the size of the grid, as
        Hugging Face's FLAVA; ``dino`` interpolates by the factor (size of the grid + 0.1) / (size of the grid for
        ``image_size``), as the published code of DINO, which samples slightly other positions.
        """
        trained = self.patch_embed.grid_size
        if grid == trained:
            return self.pos_embed
        if self.position_interpolation == "flava":
            return resample_abs_pos_embed(self.pos_embed, list(grid), list(trained), antialias=False)
        cls, patches = self.pos_embed.split([1, self.patch_embed.num_patches], dim=1)
        scale = [(new + 0.1) / old for new, old in zip(grid, trained, strict=True)]
        patches = patches.unflatten(1, trained).permute(0, 3, 1, 2).float()
        patches = interpolate(patches, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
        return torch.cat([cls, patches.to(cls.dtype)], dim=1)

    def grid(self, image_BCHW: Tensor) -> tuple[int, int]:
        """Return the number of rows and columns of patches in the images."""
        height, width = self.patch_embed.patch_size
        return image_BCHW.shape[-2] // height, image_BCHW.shape[-1] // width

    def forward(  # type: ignore[override]
        self,
        image_BCHW: Tensor,
        patch_mask_BP: Tensor | tuple[Tensor | None, ...] | None = None,
        queries: Queries = None,
    ) -> EncodedViews:
        """Encode images to (B, 1 + number of patches, D) states, with masked patches (True) replaced by the mask token.

        If ``patch_mask_BP`` and ``queries`` are tuples of length n, the images are encoded n times with different
        masks, and a tuple of n outputs is returned; see ``Transformer.forward``.
        """
        patches = self.embed(image_BCHW)  # computed once for all masks
        masks = patch_mask_BP if isinstance(patch_mask_BP, tuple) else (patch_mask_BP,)
        views = [patches if mask is None else self.mask(patches, mask) for mask in masks]
        return super().forward(self.sequence(torch.cat(views), self.grid(image_BCHW)), None, queries)
