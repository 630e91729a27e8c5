"""A stock model of MMF with BatchNorm, tied weights and buffers of several kinds."""

import torch
from mmf.common.registry import registry
from mmf.models.base_model import BaseModel
from omegaconf import OmegaConf
from torch import nn

from tests.models.conftest import sample_list

NAME = "stock_toy"


@registry.register_model(NAME)
class StockToy(BaseModel):
    """Predicts a word from another one; the embeddings are also the weights of the output layer."""

    def build(self):
        self.embedding, self.norm = nn.Embedding(5, 4), nn.BatchNorm1d(4)
        self.output = nn.Linear(4, 5, bias=False)
        self.output.weight = self.embedding.weight
        self.unused = nn.Linear(2, 2)
        values = torch.arange(6.0)
        self.register_buffer("strided", values.view(2, 3).t())
        self.register_buffer("part", values[2:4])

    def forward(self, sample_list):
        return {"scores": self.output(self.norm(self.embedding(sample_list["ids"])))}


def build() -> StockToy:
    """Build the toy as MMF does, always with the same weights."""
    registry.register("config", OmegaConf.create({"evaluation": {"predict": False}}))
    torch.manual_seed(0)
    model = StockToy(OmegaConf.create({"losses": ["cross_entropy"]}))
    model.build()
    model.init_losses()
    return model


def words(number: int, rows: slice = slice(None)):
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(0, 5, (6,), generator=generator)[rows]
    return sample_list("words", ids=ids, targets=(ids + 1) % 5)
