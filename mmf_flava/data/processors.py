"""MMF processors for pretraining: the image and text processors with the defaults of a run."""

from pathlib import Path
from typing import Any

from mmf.common.registry import registry
from mmf.datasets.processors.processors import BaseProcessor

from mmf_flava.compat.dataset_config import read_model_sizes
from mmf_flava.config.processors import ImageProcessorConfig, MulticropConfig, TextProcessorConfig, TokensConfig
from mmf_flava.data.image_processor import ImageProcessor
from mmf_flava.data.initial_processors import InitialProcessors
from mmf_flava.data.multicrop import MulticropProcessor
from mmf_flava.data.run_processors import initial_processors
from mmf_flava.data.text_processor import TextProcessor
from mmf_flava.errors import UserError


@registry.register_processor("flava_image")
class FlavaImageProcessor(ImageProcessor, BaseProcessor):
    """Image processor of a dataset.

    Args:
        config: ``params`` of the processor, see ``ImageProcessorConfig``.
        initial: source of the default mean and std; default: the processors stored with the weights that the run starts
            from.
    """

    CONFIG = ImageProcessorConfig

    def __init__(self, config: Any, *args: Any, initial: InitialProcessors | None = None, **kwargs: Any):
        super().__init__(config, initial or initial_processors("data_dir" in kwargs))


@registry.register_processor("flava_multicrop")
class FlavaMulticropProcessor(MulticropProcessor, BaseProcessor):
    """Image processor of a dataset for DINO.

    Args:
        config: ``params`` of the processor, see ``MulticropConfig``.
        initial: source of the default mean and std; default: the processors stored with the weights that the run starts
            from.
    """

    CONFIG = MulticropConfig

    def __init__(self, config: Any, *args: Any, initial: InitialProcessors | None = None, **kwargs: Any):
        super().__init__(config, initial or initial_processors("data_dir" in kwargs))


@registry.register_processor("flava_text")
class FlavaTextProcessor(TextProcessor, BaseProcessor):
    """Text processor of a dataset.

    Args:
        config: ``params`` of the processor, see ``TextProcessorConfig``.
        data_dir: folder of the dataset.
        initial: source of the default tokenizer and max_length; default: the processors stored with the weights that
            the run starts from.

    Raises:
        UserError: the tokenizer has more tokens than the run's model has word embeddings.
    """

    CONFIG: type[TokensConfig] = TextProcessorConfig

    def __init__(
        self,
        config: Any,
        *args: Any,
        data_dir: str | Path | None = None,
        initial: InitialProcessors | None = None,
        **kwargs: Any,
    ):
        super().__init__(config, initial or initial_processors(data_dir is not None), data_dir)
        if data_dir is not None:
            _check_vocabulary_size(self.vocab_size)


def _check_vocabulary_size(tokens: int) -> None:
    """Raise UserError if a dataset's tokenizer has more tokens than the model has word embeddings."""
    config = registry.get("config", default=None, no_warning=True)
    sizes = read_model_sizes(config) if config is not None else None
    if sizes is not None and sizes.vocabulary is not None and tokens > sizes.vocabulary:
        raise UserError(
            f"{sizes.where}.text_encoder.vocab_size is {sizes.vocabulary}, but the tokenizer has {tokens} tokens. Set "
            f"it to at least {tokens}."
        )
