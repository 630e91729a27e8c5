"""Packaging of mmf_flava.

Three details are unusual:

* ``mmf_flava.pth`` is installed in site-packages, which Python scans at start-up, so that MMF is patched before any
  script imports it.
* ``projects/`` is included in the package, so that ``config=projects/flava/configs/demo.yaml`` is found after
  ``pip install`` as in a checkout (see ``mmf_flava.config.recipes``).
* MMF is not a dependency, because its sdist lacks all YAML files and pins torch 1.5. Embedder, ``load_pretrained``,
  ``convert``, ``embed`` and ``search`` work without it. ``python -m mmf_flava.install_mmf`` installs it, with the
  packages of three extras: those that MMF imports (``mmf``), that fairseq and fairscale import (``fairseq``), and the
  additional ones of MMF's main branch (``mmf-main``).
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Add ``mmf_flava.pth``, and ``projects/`` unless the install is editable and uses the checkout's."""

    def run(self):
        super().run()
        if self.editable_mode:  # build_lib is discarded in this mode; install_lib is installed
            self.copy_file("mmf_flava.pth", self.get_finalized_command("install").install_lib)
        else:
            self.copy_file("mmf_flava.pth", self.build_lib)
            self.copy_tree("projects", str(Path(self.build_lib, "mmf_flava", "projects")))


setup(
    name="mmf_flava",
    version="0.1.0",
    description="FLAVA (Singh et al., CVPR 2022) as a plugin for Meta's MMF framework",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["mmf_flava", "mmf_flava.*"]),
    package_dir={"": "."},
    package_data={
        "mmf_flava": [
            "py.typed",
            "report/*.html",
            "report/*.css",
            "data/show/*.html",
            "data/show/*.css",
            "search/*.html",
            "search/*.css",
            "evaluation/table/*.csv",
        ],
    },
    cmdclass={"build_py": BuildPy},
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.26",
        "timm>=1.0.23",
        "numpy>=1.26",
        "omegaconf>=2.3,<2.5",
        "iopath>=0.1.10",
        "tokenizers>=0.21",
        "transformers>=4.57",
        "huggingface_hub>=0.34",
        "safetensors>=0.4.5",
        "scikit-learn>=1.4",
        "pillow>=10",
        "pyarrow>=15",
        "packaging>=22",
        "tqdm>=4.66",
        "tensorboard>=2.16",
        "matplotlib>=3.8",
        "jinja2>=3.1",
    ],
    extras_require={
        "mmf": [
            # imported by MMF 1.0.0rc10 at start-up; its other pinned packages are not needed
            "requests",
            "lmdb",
            "regex",
            # to retag MMF's wheel
            "wheel",
        ],
        "fairseq": [
            # imported by fairseq 0.12.2
            "hydra-core>=1.3,<1.4",
            "sacrebleu",
            "bitarray",
            # to build fairseq and fairscale
            "setuptools",
        ],
        "mmf-main": [
            # base classes of its models, datasets and data modules; also installs torchmetrics, which its registry uses
            "pytorch-lightning>=2.4",
            # coloured log output
            "termcolor>=2.0",
            # its retrieval and charades datasets, which are imported at start-up
            "pandas>=2.2.2",
        ],
        # data preparation: detection of English captions; faster JPEG decoding
        "data": ["pycld2>=0.41", "simplejpeg>=1.7"],
        # prepare --executor ray
        "ray": ["ray>=2.40"],
        # class names and templates for zero-shot classification; file formats of PCAM and UCF101
        "eval": ["open_clip_torch>=2.24", "clip-benchmark>=1.6", "h5py>=3.10", "av>=12"],
        # torch.onnx.export, see docs/export.md
        "onnx": ["onnx>=1.18", "onnxscript>=0.5"],
        "dev": [
            "pytest>=8",
            "hypothesis>=6",
            "GitPython>=3.1",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "mypy",
            "build",
            "torchmetrics>=1.4",
            "onnx>=1.18",
            "onnxscript>=0.5",
            "onnxruntime>=1.22",
            # the tools that write the formats in docs/own_data.md
            "pandas>=2.2.2",
            "datasets>=4",
            "webdataset>=1",
        ],
    },
)
