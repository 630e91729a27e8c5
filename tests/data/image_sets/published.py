"""Small copies of the published datasets in their original layout. The grey value of an image encodes its label."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import av
import h5py
import numpy as np
import torch
from PIL import Image
from scipy.io import savemat

STEP = 20  # grey of label n: n * STEP + 10


def grey_image(label: int, side: int = 8) -> Image.Image:
    return Image.new("RGB", (side, side), (label * STEP + 10,) * 3)


def pixels(labels: list[int], side: int) -> np.ndarray:
    """(N, side, side, 3)."""
    return np.stack([np.asarray(grey_image(label, side)) for label in labels])


def save(path: Path, label: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey_image(label).save(path, quality=100) if path.suffix == ".jpg" else grey_image(label).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def cifar(folder: str, meta: str, names: str, labels: str, test: str) -> Callable[[Path], None]:
    def write_files(root: Path) -> None:
        (root / folder).mkdir()
        batch = {"data": pixels([2, 0], 32).transpose(0, 3, 1, 2).reshape(2, -1), labels: [2, 0]}
        for name in (*(f"data_batch_{n}" for n in range(1, 6)), "train", test):
            (root / folder / name).write_bytes(pickle.dumps(batch))
        (root / folder / meta).write_bytes(pickle.dumps({names: ["airplane", "automobile", "bird"]}))

    return write_files


def mnist(root: Path) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split_name in ("train", "t10k"):
        images, labels = pixels([3, 7], 28)[..., 0], np.array([3, 7], np.uint8)
        header = b"".join(n.to_bytes(4, "big") for n in (2051, 2, 28, 28))
        (raw / f"{split_name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (raw / f"{split_name}-labels-idx1-ubyte").write_bytes(
            (2049).to_bytes(4, "big") + (2).to_bytes(4, "big") + labels.tobytes()
        )


def stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    write(folder / "class_names.txt", "airplane\nbird\ncar\n")
    for split_name in ("train", "test"):
        (folder / f"{split_name}_X.bin").write_bytes(pixels([1, 2], 96).transpose(0, 3, 2, 1).tobytes())
        (folder / f"{split_name}_y.bin").write_bytes(bytes([2, 3]))
    (folder / "unlabeled_X.bin").write_bytes(b"")


def fer2013(root: Path) -> None:
    def row(emotion: int, label: int, usage: str) -> str:
        return f"{emotion},{' '.join([str(label * STEP + 10)] * 48 * 48)},{usage}\n"

    rows = [row(6, 4, "Training"), row(5, 6, "PublicTest"), row(4, 5, "PrivateTest"), row(0, 0, "PrivateTest")]
    write(root / "fer2013" / "fer2013.csv", "emotion,pixels,Usage\n" + "".join(rows))


def pcam(root: Path) -> None:
    (root / "pcam").mkdir()
    for split in ("train", "valid", "test"):
        stem = root / "pcam" / f"camelyonpatch_level_2_split_{split}"
        with h5py.File(f"{stem}_x.h5", "w") as x, h5py.File(f"{stem}_y.h5", "w") as y:
            x["x"], y["y"] = pixels([1, 0], 96), np.array([1, 0], np.uint8).reshape(2, 1, 1, 1)


def gtsrb(root: Path) -> None:
    for label in (0, 1):
        save(root / "gtsrb" / "GTSRB" / "Training" / f"{label:05d}" / "00000.ppm", label)
        save(root / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / f"{label}.ppm", label)
    write(root / "gtsrb" / "GT-final_test.csv", "Filename;Width;ClassId\n1.ppm;8;1\n0.ppm;8;0\n")


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    for name, label in (("Abyssinian_1", 0), ("american_bulldog_7", 1)):
        save(folder / "images" / f"{name}.jpg", label)
    for split in ("trainval", "test"):
        write(folder / "annotations" / f"{split}.txt", "american_bulldog_7 2 2 1\nAbyssinian_1 1 1 1\n")


def food101(root: Path) -> None:
    for name, label in (("apple_pie", 0), ("waffles", 1)):
        save(root / "food-101" / "images" / name / "1.jpg", label)
    for split in ("train", "test"):
        write(
            root / "food-101" / "meta" / f"{split}.json",
            json.dumps({"waffles": ["waffles/1"], "apple_pie": ["apple_pie/1"]}),
        )


def cars(root: Path) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    kind = [("fname", object), ("class", object)]
    rows = np.array([("2.jpg", 2), ("1.jpg", 1)], dtype=kind)
    for split_name, path in (
        ("train", folder / "devkit" / "cars_train_annos.mat"),
        ("test", folder / "cars_test_annos_withlabels.mat"),
    ):
        savemat(path, {"annotations": rows})
        for label in (0, 1):
            save(folder / f"cars_{split_name}" / f"{label + 1}.jpg", label)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["Acura RL", "BMW M3"], dtype=object)})


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    write(data / "variants.txt", "707-320\n727-200\n")
    for split in ("train", "val", "trainval", "test"):
        write(data / f"images_variant_{split}.txt", "0000002 727-200\n0000001 707-320\n")
    for label in (0, 1):
        save(data / "images" / f"000000{label + 1}.jpg", label)


def dtd(root: Path) -> None:
    folder = root / "dtd" / "dtd"
    for split, number in (("train", 1), ("val", 2), ("test", 3)):
        write(folder / "labels" / f"{split}1.txt", f"zigzagged/{number}.jpg\nbanded/{number}.jpg\n")
        for name, label in (("banded", 0), ("zigzagged", 1)):
            save(folder / "images" / name / f"{number}.jpg", label)


def caltech101(root: Path) -> None:
    for label, name in enumerate(("BACKGROUND_Google", "Faces", "accordion")):
        for number in range(33):
            save(root / "caltech101" / "101_ObjectCategories" / name / f"image_{number + 1:04d}.jpg", label)


def flowers102(root: Path) -> None:
    folder = root / "flowers-102"
    for label in (0, 1):
        save(folder / "jpg" / f"image_0000{label + 1}.jpg", label)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2]])})
    savemat(folder / "setid.mat", {name: np.array([[2, 1]]) for name in ("trnid", "valid", "tstid")})


def eurosat(root: Path) -> None:
    for label, name in enumerate(("AnnualCrop", "Forest")):
        for number in range(3):
            save(root / "eurosat" / "2750" / name / f"{name}_{number}.jpg", label)


def kitti(root: Path) -> None:
    """Write 20 videos of one image each; the distance of the nearest vehicle encodes the label."""
    raw = root / "Kitti" / "raw"
    write(raw / "mapping" / "train_mapping.txt", "".join(f"2011_09_26 drive_{n:04d} 0000000000\n" for n in range(20)))
    write(raw / "mapping" / "train_rand.txt", ",".join(str(n + 1) for n in reversed(range(20))))
    for number in range(20):
        label = number % 4
        kind, depth = [("Van", 8.0), ("Car", 20.0), ("Truck", 20.1), ("Tram", 2.0)][label]
        lines = [
            f"{name} 0 0 0 0 0 0 0 0 0 0 0 0 {z} 0\n" for name, z in (("Car", 90.0), (kind, depth), ("DontCare", -1000))
        ]
        write(raw / "training" / "label_2" / f"{number:06d}.txt", "".join(lines[1 if label == 3 else 0 :]))
        save(raw / "training" / "image_2" / f"{number:06d}.png", label)


def video(path: Path, greys: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        for grey in greys:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), grey, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def ucf101(root: Path) -> None:
    for label, name in enumerate(("ApplyEyeMakeup", "YoYo")):
        middle = label * STEP + 10
        video(root / "UCF-101" / name / f"v_{name}_g01_c01.avi", [200, 200, middle, 200, 200])
    lines = ["YoYo/v_YoYo_g01_c01.avi", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"]
    for fold in (1, 2, 3):
        write(root / "ucfTrainTestlist" / f"testlist0{fold}.txt", "\r\n".join(lines) + "\r\n")
        write(root / "ucfTrainTestlist" / f"trainlist0{fold}.txt", f"{lines[0]} 101\n{lines[1]} 1\n")


def clevr(root: Path) -> None:
    folder = root / "clevr" / "CLEVR_v1.0"
    for split in ("train", "val"):
        scenes = [{"image_filename": f"{n}.png", "objects": [{}] * (n + 3)} for n in (7, 0)]
        write(folder / "scenes" / f"CLEVR_{split}_scenes.json", json.dumps({"scenes": scenes}))
        for label in (0, 7):
            save(folder / "images" / split / f"{label}.png", label)


def sun397(root: Path) -> None:
    folder = root / "SUN397"
    write(folder / "ClassName.txt", "/a/abbey\n/a/apse/indoor\n")
    for number, split_name in enumerate(("Training", "Testing")):
        write(
            folder / "Partitions" / f"{split_name}_01.txt",
            f"/a/apse/indoor/sun_{number}.jpg\n/a/abbey/sun_{number}.jpg\n",
        )
        for name, label in (("abbey", 0), ("apse/indoor", 1)):
            save(folder / "a" / name / f"sun_{number}.jpg", label)


def folders(stem: str, splits: tuple[str, ...], names: tuple[str, ...]) -> Callable[[Path], None]:
    def write_files(root: Path) -> None:
        for split in splits:
            for label, name in enumerate(names):
                save(root / stem / split / name / "1.png", label)

    return write_files


def imagenet(root: Path) -> None:
    folders("", ("train", "val"), ("n01440764", "n01443537"))(root)
    torch.save(({"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",)}, []), root / "meta.bin")


WRITERS: dict[str, Callable[[Path], None]] = {
    "CIFAR10": cifar("cifar-10-batches-py", "batches.meta", "label_names", "labels", "test_batch"),
    "CIFAR100": cifar("cifar-100-python", "meta", "fine_label_names", "fine_labels", "test"),
    "CLEVRClassification": clevr,
    "Caltech101": caltech101,
    "Country211": folders("country211", ("train", "valid", "test"), ("AD", "AE")),
    "DTD": dtd,
    "EuroSAT": eurosat,
    "FER2013": fer2013,
    "FGVCAircraft": aircraft,
    "Flowers102": flowers102,
    "Food101": food101,
    "GTSRB": gtsrb,
    "ImageNet": imagenet,
    "Kitti": kitti,
    "MNIST": mnist,
    "OxfordIIITPet": pets,
    "PCAM": pcam,
    "RenderedSST2": folders("rendered-sst2", ("train", "valid", "test"), ("negative", "positive")),
    "STL10": stl10,
    "SUN397": sun397,
    "StanfordCars": cars,
    "UCF101": ucf101,
}
