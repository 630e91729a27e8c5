"""Catalogue of published image classification datasets by torchvision's names: splits, files, source and reader."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchvision import datasets

from mmf_flava.config.schema import suggestion
from mmf_flava.data.image_sets.kitti import open_kitti
from mmf_flava.data.image_sets.labelled import LabelledFiles, TorchvisionRecords, sample_split
from mmf_flava.data.image_sets.ucf101 import open_ucf101
from mmf_flava.data.record import Records
from mmf_flava.data.text_lines import read_lines
from mmf_flava.errors import UserError

VGG = "https://www.robots.ox.ac.uk/~vgg/data"


@dataclass(frozen=True)
class ImageSet:
    """One published dataset.

    Attributes:
        splits: names of the splits.
        files: files expected in the data folder.
        homepage: URL of the source.
        downloadable: whether torchvision can download the dataset.
        has_loader: whether torchvision's class has a ``loader`` argument.
        open: function (root, split) -> records; None: the dataset is opened with torchvision's class.
        relabel: function that maps torchvision's label to the label of the record; None: unchanged.
    """

    splits: tuple[str, ...]
    files: str
    homepage: str
    downloadable: bool = True
    has_loader: bool = True
    open: Callable[[Path, str], Records] | None = None
    relabel: Callable[[int], int] | None = None


def _open_sun397(root: Path, split: str) -> LabelledFiles:
    """Open the first partition of SUN397: 50 images per class for training and 50 for testing."""
    folder = root / "SUN397"
    name = {"train": "Training_01.txt", "test": "Testing_01.txt"}[split]
    lists = [path for path in (folder / "Partitions" / name, folder / name) if path.is_file()]
    if not lists:
        raise FileNotFoundError(f"{folder / 'Partitions' / name} does not exist")
    classes = [line[3:].strip() for line in read_lines(folder / "ClassName.txt") if line.strip()]
    labels = {name: label for label, name in enumerate(classes)}
    keys = [line.strip().lstrip("/") for line in read_lines(lists[0]) if line.strip()]
    return LabelledFiles(folder, keys, (labels[key[2:].rpartition("/")[0]] for key in keys), classes)


def _open_caltech101(root: Path, split: str) -> LabelledFiles:
    """Open Caltech101 as in CLIP: 102 classes with background, 30 training images per class, the rest for testing."""
    return sample_split(root / "caltech101" / "101_ObjectCategories", split, train=30, test=None)


def _open_eurosat(root: Path, split: str) -> LabelledFiles:
    """Open EuroSAT with CLIP's sizes: 1,000 training and 500 test images per class. CLIP's sample is not published."""
    return sample_split(root / "eurosat" / "2750", split, train=1000, test=500)


def _alphabetical_label(emotion: int) -> int:
    """Map FER2013's labels (angry, disgust, fear, happy, sad, surprise, neutral) to the order of the sorted names."""
    return (0, 1, 2, 3, 5, 6, 4)[emotion]


def _object_count_label(objects: int) -> int:
    """Map the number of objects in a CLEVR scene, 3 to 10, to labels 0 to 7."""
    return objects - 3


TRAIN_TEST, TRAIN_VAL_TEST = ("train", "test"), ("train", "val", "test")
IMAGE_SETS = {
    "CIFAR10": ImageSet(
        TRAIN_TEST, "cifar-10-batches-py", "https://www.cs.toronto.edu/~kriz/cifar.html", has_loader=False
    ),
    "CIFAR100": ImageSet(
        TRAIN_TEST, "cifar-100-python", "https://www.cs.toronto.edu/~kriz/cifar.html", has_loader=False
    ),
    "CLEVRClassification": ImageSet(
        ("train", "val"),
        "clevr/CLEVR_v1.0",
        "https://cs.stanford.edu/people/jcjohns/clevr",
        relabel=_object_count_label,
    ),
    "Caltech101": ImageSet(
        TRAIN_TEST,
        "caltech101/101_ObjectCategories",
        "https://data.caltech.edu/records/mzrjq-6wc02",
        open=_open_caltech101,
    ),
    "Country211": ImageSet(
        ("train", "valid", "test"),
        "country211/{train,valid,test}",
        "https://openaipublic.azureedge.net/clip/data/country211.tgz",
    ),
    "DTD": ImageSet(TRAIN_VAL_TEST, "dtd/dtd/{images,labels}", f"{VGG}/dtd"),
    "EuroSAT": ImageSet(TRAIN_TEST, "eurosat/2750", "https://github.com/phelber/EuroSAT", open=_open_eurosat),
    "FER2013": ImageSet(
        TRAIN_TEST,
        "fer2013/fer2013.csv or icml_face_data.csv",
        "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
        downloadable=False,
        has_loader=False,
        relabel=_alphabetical_label,
    ),
    "FGVCAircraft": ImageSet(("train", "val", "trainval", "test"), "fgvc-aircraft-2013b/data", f"{VGG}/fgvc-aircraft"),
    "Flowers102": ImageSet(TRAIN_VAL_TEST, "flowers-102/{jpg,imagelabels.mat,setid.mat}", f"{VGG}/flowers/102"),
    "Food101": ImageSet(
        TRAIN_TEST, "food-101/{images,meta}", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101"
    ),
    "GTSRB": ImageSet(
        TRAIN_TEST, "gtsrb/GTSRB and gtsrb/GT-final_test.csv", "https://benchmark.ini.rub.de", has_loader=False
    ),
    "ImageNet": ImageSet(
        ("train", "val"),
        "meta.bin and {train,val}, or ILSVRC2012's archives",
        "https://image-net.org/download",
        downloadable=False,
    ),
    "Kitti": ImageSet(
        TRAIN_VAL_TEST,
        "Kitti/raw/training/{image_2,label_2} and the devkit's Kitti/raw/mapping",
        "https://www.cvlibs.net/datasets/kitti/eval_object.php",
        downloadable=False,
        open=open_kitti,
    ),
    "MNIST": ImageSet(TRAIN_TEST, "MNIST/raw", "https://ossci-datasets.s3.amazonaws.com/mnist", has_loader=False),
    "OxfordIIITPet": ImageSet(
        ("trainval", "test"), "oxford-iiit-pet/{images,annotations}", f"{VGG}/pets", has_loader=False
    ),
    "PCAM": ImageSet(TRAIN_VAL_TEST, "pcam/*.h5", "https://github.com/basveeling/pcam", has_loader=False),
    "RenderedSST2": ImageSet(
        TRAIN_VAL_TEST, "rendered-sst2", "https://openaipublic.azureedge.net/clip/data/rendered-sst2.tgz"
    ),
    "STL10": ImageSet(TRAIN_TEST, "stl10_binary", "https://cs.stanford.edu/~acoates/stl10", has_loader=False),
    "SUN397": ImageSet(
        TRAIN_TEST,
        "SUN397/{ClassName.txt,Partitions/*_01.txt} and its folders",
        "https://vision.princeton.edu/projects/2010/SUN (also Partitions.zip, which torchvision does not download)",
        open=_open_sun397,
    ),
    "StanfordCars": ImageSet(
        TRAIN_TEST,
        "stanford_cars/{cars_train,cars_test,devkit,cars_test_annos_withlabels.mat}",
        "https://www.kaggle.com/datasets/eduardo4jesus/stanford-cars-dataset (the original site is offline)",
        downloadable=False,
    ),
    "UCF101": ImageSet(
        tuple(f"{split}0{fold}" for split in TRAIN_TEST for fold in (1, 2, 3)),
        "UCF-101/<class>/*.avi and ucfTrainTestlist/*.txt",
        "https://www.crcv.ucf.edu/data/UCF101.php",
        downloadable=False,
        open=open_ucf101,
    ),
}
TRAIN_FLAG_SETS = ("CIFAR10", "CIFAR100", "MNIST")  # train=True or False instead of split="train"


def get_image_set(name: str) -> ImageSet:
    """Return the dataset called ``name``.

    Raises:
        UserError: the name is unknown; the message suggests a close match.
    """
    if name not in IMAGE_SETS:
        raise UserError(f"source: unknown dataset '{name}'.{suggestion(name, IMAGE_SETS)}")
    return IMAGE_SETS[name]


def open_image_set(name: str, root: Path, split: str) -> Records:
    """Open a split of a published dataset. The attribute ``classes`` has the class names in label order, or None.

    Raises:
        UserError: the dataset or split is unknown, or its files are not in ``root``.
    """
    image_set = get_image_set(name)
    if split not in image_set.splits:
        raise UserError(f"splits: {name} has no split '{split}'. Its splits are {', '.join(image_set.splits)}.")
    try:
        if image_set.open is not None:
            return image_set.open(root, split)
        return TorchvisionRecords(_open_torchvision(name, root, split), root, split, image_set.relabel)
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        # keep the first sentence of torchvision's message (missing or corrupt); the second one is a download hint
        detail = str(error).split(". You ")[0].rstrip(".")
        hint = ", or set download: true" if image_set.downloadable else ""
        raise UserError(
            f"data_dir: {name} ({split}) was not found in {root}: expected {image_set.files} ({detail}). Download it "
            f"from {image_set.homepage}{hint}."
        ) from error


def download_image_set(name: str, root: Path, split: str) -> None:
    """Download missing files of a split with torchvision.

    Raises:
        UserError: torchvision cannot download the dataset, or the download fails.
    """
    image_set = get_image_set(name)
    if not image_set.downloadable:
        raise UserError(
            f"download: {name} must be downloaded manually from {image_set.homepage}. Expected files: "
            f"{image_set.files}."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        if image_set.open is None:
            _open_torchvision(name, root, split, download=True)
        else:
            getattr(datasets, name)(root, download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"download: {name} could not be downloaded to {root} ({error}). Download it from {image_set.homepage}."
        ) from error


def _open_torchvision(name: str, root: Path, split: str, **keywords: Any) -> Any:
    keywords |= {"train": split == "train"} if name in TRAIN_FLAG_SETS else {"split": split}
    if IMAGE_SETS[name].has_loader:
        keywords["loader"] = Path
    return getattr(datasets, name)(root, **keywords)
