"""Collapse of a self-distilled model: its output is the same for all images (DINO, section 5.3).

The outputs collapse to a uniform distribution or to one dimension. In both cases, the mean output over the images is
equal to the output of each image, so the mutual information of image and output is zero: the entropy of the mean
output minus the mean entropy. If all images are equal, the outputs may differ between crops, but crops of one image
differ as much as crops of two images.
"""

from collections.abc import Mapping

INFORMATION = "teacher_information"  # key of ``output_statistics`` of the model, in nats
MIN_INFORMATION = 0.01
SEPARATION = "teacher_separation"  # key of ``output_statistics`` of the model
MIN_SEPARATION = 0.1


def describe_collapse(outputs: Mapping[str, float]) -> str | None:
    """Return a sentence if the outputs hardly depend on the images; None if they do, or if it is not known.

    Args:
        outputs: statistics of the outputs of several different images.
    """
    information, separation = outputs.get(INFORMATION), outputs.get(SEPARATION)
    if information is not None and information < MIN_INFORMATION:
        return (
            f"The teacher's output hardly depends on the image: its information is {information:.4f} nats. The model "
            "has collapsed, or has not trained long enough. Check that the images differ; in a new run, decrease "
            "optimizer.params.lr or teacher_temperature."
        )
    if separation is not None and separation < MIN_SEPARATION:
        return (
            "The teacher's output depends on the crop, but hardly on the image: crops of one image differ as much as "
            f"crops of two images (separation {separation:.3f}). The model has not trained long enough, or the images "
            "are equal or nearly so: look at them with python -m mmf_flava.data.show."
        )
    return None
