"""Packaging of mmf_flava.

Three things here are not routine:

* ``mmf_flava.pth`` must lie in site-packages itself, which Python scans at start-up, so that MMF is cured before it is
  imported, whichever script imports it.
* ``projects/`` travels inside the package, so that ``config=projects/flava/configs/demo.yaml`` is found after
  ``pip install`` as it is in a checkout (see ``mmf_flava.config.recipes``).
* MMF is no dependency by name: its sdist lacks every YAML file and pins torch 1.5. The Makefile installs it as it must
  be; the ``mmf`` extra lists what MMF, fairseq and fairscale really import, ``mmf-main`` what MMF's main branch does
  beside that.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Adds ``mmf_flava.pth``, and to a real wheel ``projects/``; an editable install reads the checkout's own."""

    def run(self):
        super().run()
        if self.editable_mode:  # build_lib is thrown away here: what is to be installed lies in install_lib
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
            "evaluation/table/*.csv",
        ],
    },
    cmdclass={"build_py": BuildPy},
    install_requires=[
        "torch>=2.11",
        "torchvision>=0.26",
        "timm>=1.0.20",
        "numpy>=1.26",
        "omegaconf>=2.3,<2.5",
        "iopath>=0.1.10",
        "tokenizers>=0.21",
        "transformers>=4.57",
        "safetensors>=0.4.5",
        "scikit-learn>=1.4",
        "pillow>=10",
        "tqdm>=4.66",
        "tensorboard>=2.16",
        "matplotlib>=3.8",
        "jinja2>=3.1",
    ],
    extras_require={
        "mmf": [
            # MMF 1.0.0rc10 imports these at start-up; the rest of what it pins is never needed
            "requests",
            "lmdb",
            "regex",
            # fairseq 0.12.2
            "hydra-core>=1.3,<1.4",
            "sacrebleu",
            "bitarray",
            # building fairseq and fairscale, retagging MMF's wheel
            "setuptools",
            "wheel",
        ],
        "mmf-main": [
            # its base classes of models, datasets and data modules; brings torchmetrics, which its registry knows
            "pytorch-lightning>=2.4",
            # the colours of its log
            "termcolor>=2.0",
            # its retrieval and charades datasets, imported at start-up as all of them are
            "pandas>=2.2.2",
        ],
        # building data: telling English captions, reading parquet; decoding JPEGs faster
        "data": ["pycld2>=0.41", "pyarrow>=15", "simplejpeg>=1.7"],
        # class names and templates of zero-shot classification; PCAM's and UCF101's files
        "eval": ["open_clip_torch>=2.24", "clip-benchmark>=1.6", "h5py>=3.10", "av>=12"],
        "dev": ["pytest>=8", "GitPython>=3.1", "pytest-xdist", "ruff", "mypy", "build", "torchmetrics>=1.4"],
    },
)
