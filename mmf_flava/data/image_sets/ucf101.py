"""UCF101 as images: the middle frame of each video, as in CLIP."""

import re
from collections import deque
from itertools import islice
from pathlib import Path

from mmf_flava.data.image_sets.labelled import LabelledFiles, encode_bmp
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.text_lines import read_lines
from mmf_flava.errors import UserError


class MiddleFrames(LabelledFiles):
    """Labelled video files. The image of a record is the middle frame of its video."""

    def _content(self, path: Path) -> bytes:
        import av  # optional dependency, only needed for UCF101

        try:
            with av.open(str(path)) as video:
                stream = video.streams.video[0]
                last = deque(islice(video.decode(stream), stream.frames // 2 + 1), maxlen=1)
                image = last[0].to_image()
        except FileNotFoundError:
            raise
        except (av.FFmpegError, IndexError) as error:  # IndexError: no video stream or no frame
            key = str(path.relative_to(self.root))
            raise BadRecord(
                Reason.DAMAGED_IMAGE, f"{path} cannot be decoded as video ({type(error).__name__}: {error})", key
            ) from error
        return encode_bmp(image)


def open_ucf101(root: Path, split: str) -> MiddleFrames:
    """Open the videos of a split of UCF101, such as ``test01``.

    Raises:
        OSError: a file is missing.
        UserError: PyAV is not installed.
    """
    try:
        import av  # noqa: F401
    except ImportError:
        raise UserError("UCF101: reading videos requires PyAV. Install it with `pip install av`.") from None
    lines = read_lines(root / "ucfTrainTestlist" / f"{split[:-2]}list{split[-2:]}.txt")
    keys = [line.split(" ")[0] for line in lines if line.strip()]
    folders = sorted({key.split("/")[0] for key in keys})
    if not (root / "UCF-101").is_dir():
        raise FileNotFoundError(f"{root / 'UCF-101'} does not exist")
    class_labels = {name: label for label, name in enumerate(folders)}
    labels = [class_labels[key.split("/")[0]] for key in keys]
    classes = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name) for name in folders]
    return MiddleFrames(root / "UCF-101", keys, labels, classes)
