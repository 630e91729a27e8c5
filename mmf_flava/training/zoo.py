"""``checkpoint.resume_zoo``: pretrained weights by their name in FLAVA's or MMF's zoo, or on the Hugging Face Hub."""

from typing import Any

from mmf_flava.compat import mmf_api
from mmf_flava.config.zoo import find_in_zoo


def replace_zoo_name(config: Any) -> None:
    """Replace ``checkpoint.resume_zoo`` by the keys of the weights that it names. As in MMF, ``resume_file`` precedes.

    The weights become ``pretrained`` of ``flava_classification``, which has a classifier of its own, and
    ``checkpoint.resume_file`` of other models. MMF's ``pretrained_state_mapping`` needs ``resume_pretrained``.

    Raises:
        UserError: the name is unknown, or the weights cannot be downloaded.
    """
    section = config.checkpoint
    if (name := section.resume_zoo) is None:
        return
    section.resume_zoo = None
    if section.resume_file:
        mmf_api.log(f"checkpoint.resume_zoo: {name} is not used, because checkpoint.resume_file is set.")
        return
    source = find_in_zoo(name) or mmf_api.find_in_mmf_zoo(name)
    if config.model == "flava_classification":
        config.model_config.flava_classification.pretrained = source
        return
    if not section.resume_pretrained:
        section.pretrained_state_mapping = {}
    section.resume_file, section.resume_pretrained = source, True
