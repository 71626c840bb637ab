"""Mean average precision at IoU 0.5 by COCO's rules, exact over any split of the frames."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from hpcai500.errors import DataError

IOU_THRESHOLD = 0.5
MAX_DETECTIONS = 100
"""A class and frame, as in COCO."""

Box = list[float]
"""x1, y1, x2, y2 in pixels."""


class FrameResult(NamedTuple):
    """Detections and true boxes of one frame."""

    index: int
    boxes: list[Box]
    labels: list[int]
    scores: list[float]
    true_boxes: list[Box]
    true_labels: list[int]


def merge(states: Iterable[Iterable[FrameResult]]) -> list[FrameResult]:
    """All ranks' frames in the order of the data set, so that equal scores rank alike for any split."""
    return sorted((result for state in states for result in state), key=lambda result: result.index)


def average_precisions(results: Sequence[FrameResult], num_classes: int) -> dict[int, float]:
    """COCO's average precision at IoU 0.5 (101 recall points) of each class that has a true box.

    Raises:
        DataError: if there is no true box at all.
    """
    if not any(result.true_boxes for result in results):
        raise DataError("the evaluation frames hold no box", "see `hpcai500 data verify extreme_weather`")
    images = [{"id": number} for number in range(len(results))]
    truth = [
        _annotation(number, box, label)
        for number, result in enumerate(results)
        for box, label in zip(result.true_boxes, result.true_labels, strict=True)
    ]
    found = [
        _annotation(number, box, label) | {"score": score}
        for number, result in enumerate(results)
        for box, label, score in zip(result.boxes, result.labels, result.scores, strict=True)
    ]
    evaluation = COCOeval_faster(_dataset(images, truth, num_classes), _dataset(images, found, num_classes), "bbox")
    evaluation.params.iouThrs = np.array([IOU_THRESHOLD])
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.params.areaRng = [[0, 1e10]]
    evaluation.params.areaRngLbl = ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, 0]  # recall points by classes, -1 without a true box
    return {label: float(np.mean(curve)) for label, curve in enumerate(precision.T) if curve[0] >= 0}


def _annotation(image: int, box: Box, label: int) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    return {
        "image_id": image,
        "category_id": label,
        "bbox": [x1, y1, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


def _dataset(images: list[dict[str, int]], annotations: list[dict[str, Any]], num_classes: int) -> COCO:
    for number, annotation in enumerate(annotations, start=1):  # 0 would mean "unmatched"
        annotation["id"] = number
    return COCO({"images": images, "annotations": annotations, "categories": [{"id": c} for c in range(num_classes)]})
