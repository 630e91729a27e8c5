"""The models that mmf_flava registers with MMF, and the config class of each."""

from mmf_flava.config.dino import DinoConfig
from mmf_flava.config.model import ClassificationConfig, FlavaConfig

# registered name -> schema of model_config.<name>
MODELS = {"flava": FlavaConfig, "flava_classification": ClassificationConfig, "flava_dino": DinoConfig}
