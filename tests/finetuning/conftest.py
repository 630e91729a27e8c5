"""Toy datasets in MMF's layout, and a fixture that runs finetuning recipes on them in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mmf.common.registry import registry
from mmf_cli.run import run as mmf_run

from mmf_flava.config.recipes import recipe_path
from tests.finetuning import toys

DATASETS = ("hateful_memes", "visual_entailment", "vqa2", "image_classification", "image_text_classification")
Finetune = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread, which is faster for toy models."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory) -> Path:
    """``env.data_dir`` with all toy datasets."""
    folder = tmp_path_factory.mktemp("toys")
    toys.write_tokenizer(folder / "flava_demo" / "tokenizer")
    toys.write_hateful_memes(folder, {"train": 256, "dev": 63, "test": 7})
    toys.write_visual_entailment(folder, {"train": 96, "dev": 30, "test": 6})
    toys.write_vqa2(folder, {"train2014": 256, "val2014": 64, "test2015": 6})
    return folder


@pytest.fixture(scope="session")
def finetune(toy_data) -> Finetune:
    """Return ``finetune("demo_vqa2", folder, "training.max_updates=4", ...)``, which runs a recipe in ``folder``."""

    def finetune(name: str, folder: Path, *options: str, predict: bool = False) -> Path:
        registry.unregister("config")  # MMF would use the folders of another test's config
        for dataset in DATASETS:
            for processor in ("image_processor", "text_processor", "answer_processor"):
                registry.unregister(f"{dataset}_{processor}")  # MMF keeps the first processors built in a process
        arguments = [
            f"config={recipe_path(f'finetune/{name}')}", f"env.data_dir={toy_data}", f"env.save_dir={folder}", *options,
        ]  # fmt: skip
        if predict:
            arguments.append("evaluation.predict=true")
        mmf_run(arguments, predict=predict)
        return folder

    return finetune
