"""Interpretation of paths in recipes and on the command line.

An absolute path is used unchanged, and a path that begins with ``~`` is relative to the home folder. Any other path is
relative to a folder that depends on the key:

====================================================  ==========================================================
config=, ``includes``                                  see ``config.recipes.find_recipe``
``env.*_dir``, ``dataset_config.NAME.data_dir``        the working directory
``splits``, ``image_dir``, ``classes`` (a file)        data_dir of the dataset; URLs are allowed in ``splits``
``codes``                                              data_dir/codes, or the working directory if it has a ``/``
``tokenizer``                                          data_dir or the working directory; otherwise a model ID
``codebook.path``, ``pretrained``, ``resume_file``     the working directory; otherwise a URL or model ID
``evaluation.zero_shot.classes_file``, ``features_dir`` the working directory
keys of MMF's own datasets                             ``env.data_dir``, as MMF documents
====================================================  ==========================================================
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HOME = re.compile(r"~[\w.-]*(/|$)")


def resolve_path(path: str | Path, folder: str | Path = "") -> Path:
    """Expand ``~`` in a path. A relative path is relative to ``folder`` (default: the working directory)."""
    return Path(os.path.expanduser(folder)) / os.path.expanduser(path)


def expand_home_folders(config: Any) -> Any:
    """Expand ``~`` in all values of an OmegaConf config that begin with ``~/`` or ``~user/``, and return it."""
    from omegaconf import OmegaConf

    for steps, value in _find(OmegaConf.to_container(config, resolve=False), ()):
        section = config
        for step in steps[:-1]:
            section = section[step]
        section[steps[-1]] = os.path.expanduser(value)
    return config


def _find(node: Any, steps: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield the keys and values of all strings that begin with a home folder."""
    if isinstance(node, str):
        if HOME.match(node):
            yield steps, node
    elif isinstance(node, dict | list):
        for step, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _find(child, (*steps, step))
