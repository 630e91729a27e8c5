"""Pretrained weights of single encoders, as set by ``image_encoder.pretrained`` and ``text_encoder.pretrained``."""

from collections.abc import Iterable

from mmf_flava.config.model import CoreConfig
from mmf_flava.data.run_processors import initial_processors
from mmf_flava.models.flava import Flava
from mmf_flava.weights.encoders import load_image_encoder, load_text_encoder


def load_encoders(
    flava: Flava,
    settings: CoreConfig,
    allow_missing: Iterable[str] = (),
    allow_extra: Iterable[str] = (),
    cache_dir: str | None = None,
) -> list[str]:
    """Load every encoder whose config sets ``pretrained``, in place.

    Args:
        allow_missing, allow_extra: see ``loading.compare_keys``.
        cache_dir: see ``sources.find_weights``.

    Returns:
        A log message for each encoder.

    Raises:
        UserError: a source was not found, its file is unsafe or corrupt, or its weights do not match the encoder.
    """
    messages, allow_missing = [], list(allow_missing)
    if (source := settings.image_encoder.pretrained) is not None:
        keys = load_image_encoder(
            flava.image_encoder, source, allow_missing=allow_missing, allow_extra=allow_extra, cache_dir=cache_dir
        )
        messages.append(keys.message("image encoder", source))
    if (source := settings.text_encoder.pretrained) is not None:
        new_vocabulary = initial_processors(in_run=True).has_new_vocabulary(source, allow_missing, cache_dir)
        keys = load_text_encoder(
            flava.text_encoder,
            source,
            allow_missing=allow_missing,
            allow_extra=allow_extra,
            cache_dir=cache_dir,
            new_vocabulary=new_vocabulary,
        )
        messages.append(keys.message("text encoder", source))
    return messages
