"""The sets by torchvision's names: their splits, where they lie, where they come from, and how each is opened."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchvision import datasets

from mmf_flava.config.schema import near_miss
from mmf_flava.data.image_sets.kitti import open_kitti
from mmf_flava.data.image_sets.labelled import LabelledFiles, TorchvisionRecords, drawn_split
from mmf_flava.data.image_sets.ucf101 import open_ucf101
from mmf_flava.data.record import Records
from mmf_flava.errors import UserError

VGG = "https://www.robots.ox.ac.uk/~vgg/data"


@dataclass(frozen=True)
class ImageSet:
    """One published set.

    ``files``: what lies below the dataset's folder. ``home``: where it can be had. ``downloads``: torchvision fetches
    it. ``open``: (root, split) -> records; None: torchvision's class. ``path``: that class takes a loader of paths.
    """

    splits: tuple[str, ...]
    files: str
    home: str
    downloads: bool = True
    path: bool = True
    open: Callable[[Path, str], Records] | None = None
    relabel: Callable[[int], int] | None = None


def _sun397(root: Path, split: str) -> LabelledFiles:
    """SUN397's first partition, 50 images a class each for training and testing."""
    folder = root / "SUN397"
    name = {"train": "Training_01.txt", "test": "Testing_01.txt"}[split]
    lists = [path for path in (folder / "Partitions" / name, folder / name) if path.is_file()]
    if not lists:
        raise FileNotFoundError(f"there is no {folder / 'Partitions' / name}")
    classes = [line[3:].strip() for line in (folder / "ClassName.txt").read_text().splitlines() if line.strip()]
    numbers = {name: number for number, name in enumerate(classes)}
    keys = [line.strip().lstrip("/") for line in lists[0].read_text().splitlines() if line.strip()]
    return LabelledFiles(folder, keys, (numbers[key[2:].rpartition("/")[0]] for key in keys), classes)


def _caltech101(root: Path, split: str) -> LabelledFiles:
    """30 images a class for training and the rest for testing, in 102 classes with the background, as CLIP has it."""
    return drawn_split(root / "caltech101" / "101_ObjectCategories", split, train=30, test=None)


def _eurosat(root: Path, split: str) -> LabelledFiles:
    """1,000 and 500 images a class, CLIP's numbers; which images it drew is not published."""
    return drawn_split(root / "eurosat" / "2750", split, train=1000, test=500)


def _by_the_alphabet(emotion: int) -> int:
    """FER2013's numbers (angry, disgust, fear, happy, sad, surprise, neutral) as numbers of the sorted names."""
    return (0, 1, 2, 3, 5, 6, 4)[emotion]


def _from_three(objects: int) -> int:
    """CLEVR's scenes have 3 to 10 objects."""
    return objects - 3


HALVES, THIRDS = ("train", "test"), ("train", "val", "test")
SETS = {
    "CIFAR10": ImageSet(HALVES, "cifar-10-batches-py", "https://www.cs.toronto.edu/~kriz/cifar.html", path=False),
    "CIFAR100": ImageSet(HALVES, "cifar-100-python", "https://www.cs.toronto.edu/~kriz/cifar.html", path=False),
    "CLEVRClassification": ImageSet(
        ("train", "val"), "clevr/CLEVR_v1.0", "https://cs.stanford.edu/people/jcjohns/clevr", relabel=_from_three
    ),
    "Caltech101": ImageSet(
        HALVES, "caltech101/101_ObjectCategories", "https://data.caltech.edu/records/mzrjq-6wc02", open=_caltech101
    ),
    "Country211": ImageSet(
        ("train", "valid", "test"),
        "country211/{train,valid,test}",
        "https://openaipublic.azureedge.net/clip/data/country211.tgz",
    ),
    "DTD": ImageSet(THIRDS, "dtd/dtd/{images,labels}", f"{VGG}/dtd"),
    "EuroSAT": ImageSet(HALVES, "eurosat/2750", "https://github.com/phelber/EuroSAT", open=_eurosat),
    "FER2013": ImageSet(
        HALVES,
        "fer2013/fer2013.csv or icml_face_data.csv",
        "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
        downloads=False,
        path=False,
        relabel=_by_the_alphabet,
    ),
    "FGVCAircraft": ImageSet(("train", "val", "trainval", "test"), "fgvc-aircraft-2013b/data", f"{VGG}/fgvc-aircraft"),
    "Flowers102": ImageSet(THIRDS, "flowers-102/{jpg,imagelabels.mat,setid.mat}", f"{VGG}/flowers/102"),
    "Food101": ImageSet(HALVES, "food-101/{images,meta}", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101"),
    "GTSRB": ImageSet(HALVES, "gtsrb/GTSRB and gtsrb/GT-final_test.csv", "https://benchmark.ini.rub.de", path=False),
    "ImageNet": ImageSet(
        ("train", "val"),
        "meta.bin and {train,val}, or ILSVRC2012's archives",
        "https://image-net.org/download",
        downloads=False,
    ),
    "Kitti": ImageSet(
        THIRDS,
        "Kitti/raw/training/{image_2,label_2} and the devkit's Kitti/raw/mapping",
        "https://www.cvlibs.net/datasets/kitti/eval_object.php",
        downloads=False,
        open=open_kitti,
    ),
    "MNIST": ImageSet(HALVES, "MNIST/raw", "https://ossci-datasets.s3.amazonaws.com/mnist", path=False),
    "OxfordIIITPet": ImageSet(("trainval", "test"), "oxford-iiit-pet/{images,annotations}", f"{VGG}/pets", path=False),
    "PCAM": ImageSet(THIRDS, "pcam/*.h5", "https://github.com/basveeling/pcam", path=False),
    "RenderedSST2": ImageSet(THIRDS, "rendered-sst2", "https://openaipublic.azureedge.net/clip/data/rendered-sst2.tgz"),
    "STL10": ImageSet(HALVES, "stl10_binary", "https://cs.stanford.edu/~acoates/stl10", path=False),
    "SUN397": ImageSet(
        HALVES,
        "SUN397/{ClassName.txt,Partitions/*_01.txt} and its folders",
        "https://vision.princeton.edu/projects/2010/SUN (Partitions.zip as well, which torchvision does not fetch)",
        open=_sun397,
    ),
    "StanfordCars": ImageSet(
        HALVES,
        "stanford_cars/{cars_train,cars_test,devkit,cars_test_annos_withlabels.mat}",
        "https://www.kaggle.com/datasets/eduardo4jesus/stanford-cars-dataset (its first home is gone)",
        downloads=False,
    ),
    "UCF101": ImageSet(
        tuple(f"{half}0{fold}" for half in HALVES for fold in (1, 2, 3)),
        "UCF-101/<class>/*.avi and ucfTrainTestlist/*.txt",
        "https://www.crcv.ucf.edu/data/UCF101.php",
        downloads=False,
        open=open_ucf101,
    ),
}
BY_FLAG = ("CIFAR10", "CIFAR100", "MNIST")  # train=True or False instead of split="train"


def find_set(name: str) -> ImageSet:
    """The set of this name; UserError with the near miss where there is none."""
    if name not in SETS:
        raise UserError(f"source: there is no set called '{name}'.{near_miss(name, SETS)}")
    return SETS[name]


def open_set(name: str, root: Path, split: str) -> Records:
    """A split of a published set; its ``classes`` are names in the labels' order, or None.

    Raises:
        UserError: no such set or split, or data that are not below ``root``.
    """
    published = find_set(name)
    if split not in published.splits:
        raise UserError(f"splits: {name} has no split '{split}'; it has {', '.join(published.splits)}.")
    try:
        if published.open is not None:
            return published.open(root, split)
        return TorchvisionRecords(_torchvision(name, root, split), root, split, published.relabel)
    except (OSError, RuntimeError) as error:
        # torchvision's first sentence says whether it is missing or damaged, its second what we say below
        detail = str(error).split(". You ")[0].rstrip(".")
        remedy = ", or set download: true" if published.downloads else ""
        raise UserError(
            f"data_dir: {name} ({split}) is not in {root}: looked for {published.files} ({detail}); get it from "
            f"{published.home}{remedy}."
        ) from error


def download_set(name: str, root: Path, split: str) -> None:
    """Lets torchvision fetch what is not there; UserError where it cannot."""
    published = find_set(name)
    if not published.downloads:
        raise UserError(
            f"download: {name} has to be fetched by hand, from {published.home}; looked for are {published.files}."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        if published.open is None:
            _torchvision(name, root, split, download=True)
        else:
            getattr(datasets, name)(root, download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"download: {name} could not be fetched into {root} ({error}); get it from {published.home}."
        ) from error


def _torchvision(name: str, root: Path, split: str, **keywords: Any) -> Any:
    keywords |= {"train": split == "train"} if name in BY_FLAG else {"split": split}
    if SETS[name].path:
        keywords["loader"] = Path
    return getattr(datasets, name)(root, **keywords)
