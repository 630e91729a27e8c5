"""Names of pretrained weights for ``checkpoint.resume_zoo``."""

import re
from typing import Any

from mmf_flava.config.registered_models import MODELS
from mmf_flava.config.schema import suggestion
from mmf_flava.errors import UserError

# name in the zoo -> Hugging Face model ID
ZOO = {"flava.full": "facebook/flava-full"}
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")


def find_in_zoo(name: str) -> str | None:
    """Return the Hugging Face model ID of a name in FLAVA's zoo, or of such an ID; None for other names."""
    return ZOO.get(name, name if HUB_NAME.fullmatch(name) else None)


def check_zoo_name(config: Any) -> None:
    """Check ``checkpoint.resume_zoo`` of a model of mmf_flava. Names in MMF's zoo are checked when it is read.

    Raises:
        UserError: the name is unknown.
    """
    name = config.checkpoint.resume_zoo
    if name and config.model in MODELS and find_in_zoo(name) is None:
        raise UserError(
            f"checkpoint.resume_zoo: unknown name '{name}'.{suggestion(name, ZOO)} "
            "A Hugging Face model ID, owner/name, is valid too."
        )
