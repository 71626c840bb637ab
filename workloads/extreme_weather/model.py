"""Faster R-CNN with a ResNet and a feature pyramid (torchvision's parts) on frames of 16 channels."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from hpcai500.spec.models import Frozen
from hpcai500.spec.workload import Count, Fraction

NUM_CHANNELS = 16
NUM_CLASSES = 4
"""Without the background, which is the model's label 0."""
POOL_SIZE = 7
"""Side of the grid that a proposal's features are pooled to."""

_BACKBONES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], list[int]]] = {
    "resnet10": (BasicBlock, [1, 1, 1, 1]),
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
}


def group_norm(num_channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, num_channels)


# Group normalisation is the reference. A rank trains 1 to 4 frames at a time, too few for batch statistics.
# Detectors learn from scratch with it as well as from pretrained weights (He, Girshick, Dollar 2018,
# arXiv:1811.08883). Frozen batch normalisation, usual in detection, keeps the statistics of pretraining. Without
# any it normalises nothing; it is here for those who load some at the free level.
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group": group_norm,
    "batch": nn.BatchNorm2d,
    "sync_batch": nn.SyncBatchNorm,
    "frozen_batch": FrozenBatchNorm2d,
}


class ModelSettings(Frozen):
    backbone: Literal["resnet10", "resnet18", "resnet50"]
    norm: Literal["group", "batch", "sync_batch", "frozen_batch"]
    stem_pooling: bool
    """The max pooling behind the first convolution. Without it every level is twice as fine."""
    num_stages: Annotated[int, Field(ge=1, le=4)]
    """Stages of the backbone in use, each with half the resolution of the last; the pyramid adds one more."""
    num_pyramid_channels: Count
    num_head_features: Count
    """Width of the two hidden layers that classify a proposal."""
    anchor_sizes: tuple[Annotated[float, Field(gt=0)], ...]
    """Square root of an anchor's area in pixels, one for each pyramid level."""
    anchor_aspects: tuple[Annotated[float, Field(gt=0)], ...]
    """Aspect ratios (height over width) of the anchors at each position."""
    num_candidates: Count
    """Anchors of each level that enter non-maximum suppression."""
    num_proposals: Count
    """Boxes per frame after suppression, for the head to judge in evaluation and to sample from in training."""
    num_sampled_anchors: Count
    """Anchors per frame in the loss of the proposals."""
    num_sampled_proposals: Count
    """Proposals per frame in the loss of the head."""
    score_threshold: Annotated[float, Field(ge=0, lt=1)]
    """Score below which a detection is dropped."""
    nms_threshold: Fraction
    """Overlap above which the weaker of two detections of one class is dropped."""
    num_detections: Count
    """Most detections kept per frame; COCO's evaluation uses 100."""

    @model_validator(mode="after")
    def _one_anchor_size_a_level(self) -> "ModelSettings":
        if len(self.anchor_sizes) != self.num_stages + 1:
            raise ValueError(
                f"anchor_sizes: {len(self.anchor_sizes)} sizes for {self.num_stages + 1} pyramid levels "
                "(num_stages + 1)"
            )
        return self


class FrameSampler(BalancedPositiveNegativeSampler):
    """Draws the anchors or proposals that enter a loss, for each frame from a seed of its own.

    torchvision's sampler draws for all frames of a batch from the global generator. Its choice would depend on the
    other frames of the batch, and so on the number of ranks.
    """

    def __init__(self, num_sampled: int, positive_fraction: float) -> None:
        super().__init__(num_sampled, positive_fraction)
        self.seeds: Sequence[int] = ()
        """One seed per frame of the next batch."""

    def __call__(self, matches: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """For each frame a mask of the positives (`matches` > 0) and of the negatives (0) that are drawn."""
        drawn = [self._draw(match, seed) for match, seed in zip(matches, self.seeds, strict=True)]
        return [positive for positive, _ in drawn], [negative for _, negative in drawn]

    def _draw(self, match: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator(match.device).manual_seed(seed)
        positive, negative = torch.where(match >= 1)[0], torch.where(match == 0)[0]
        num_positive = min(len(positive), int(self.batch_size_per_image * self.positive_fraction))
        num_negative = min(len(negative), self.batch_size_per_image - num_positive)
        return (
            _mask_of_some(match, positive, num_positive, generator),
            _mask_of_some(match, negative, num_negative, generator),
        )


def _mask_of_some(match: torch.Tensor, members: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    chosen = torch.randperm(len(members), device=match.device, generator=generator)[:count]
    mask = torch.zeros_like(match, dtype=torch.uint8)
    mask[members[chosen]] = 1
    return mask


# Boxes reach 1,152 pixels, where bfloat16 steps by 8: all that becomes a box leaves autocast here. The weights
# and features stay in the precision of the run.


class _Anchors(AnchorGenerator):
    def forward(self, image_list: ImageList, feature_maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Anchors take the type of the features; empty tensors of the same shapes carry float32."""
        stand_ins = [torch.empty((), device=feature.device).expand(feature.shape) for feature in feature_maps]
        return super().forward(image_list, stand_ins)


class _ProposalHead(RPNHead):
    def forward(self, x: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        logits, deltas = super().forward(x)
        return [level.float() for level in logits], [level.float() for level in deltas]


class _BoxPredictor(FastRCNNPredictor):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


class Detector(FasterRCNN):
    """Faster R-CNN on a batch of frames of one size, normalised already: nothing is resized, padded or copied."""

    def __init__(self, settings: ModelSettings) -> None:
        backbone = build_backbone(settings)
        channels = settings.num_pyramid_channels
        super().__init__(
            backbone,
            rpn_anchor_generator=_Anchors(
                tuple((size,) for size in settings.anchor_sizes),
                (settings.anchor_aspects,) * len(settings.anchor_sizes),
            ),
            rpn_head=_ProposalHead(channels, len(settings.anchor_aspects)),
            rpn_pre_nms_top_n_train=settings.num_candidates,
            rpn_pre_nms_top_n_test=settings.num_candidates,
            rpn_post_nms_top_n_train=settings.num_proposals,
            rpn_post_nms_top_n_test=settings.num_proposals,
            box_roi_pool=MultiScaleRoIAlign([str(stage) for stage in range(settings.num_stages)], POOL_SIZE, 2),
            box_head=TwoMLPHead(channels * POOL_SIZE**2, settings.num_head_features),
            box_predictor=_BoxPredictor(settings.num_head_features, NUM_CLASSES + 1),
            box_score_thresh=settings.score_threshold,
            box_nms_thresh=settings.nms_threshold,
            box_detections_per_img=settings.num_detections,
        )
        self.transform = None  # the resizing and normalisation of photographs
        self.rpn.fg_bg_sampler = FrameSampler(settings.num_sampled_anchors, positive_fraction=0.5)
        self.roi_heads.fg_bg_sampler = FrameSampler(settings.num_sampled_proposals, positive_fraction=0.25)

    def forward(
        self,
        frames: torch.Tensor,
        targets: list[dict[str, torch.Tensor]] | None = None,
        seeds: Sequence[int] = (),
    ) -> Any:
        """The four losses by name in training mode, the detections of each frame otherwise.

        Args:
            frames: (N, 16, H, W).
            targets: in training, `boxes` float32 (n, 4) as x1, y1, x2, y2 in pixels and `labels` int64 (n,) from 1
                for each frame; n may be 0.
            seeds: in training, one a frame, from which follows what is sampled of it.
        """
        return self._detect(frames, self.backbone(frames), targets, seeds)

    @torch.compiler.disable  # every shape from here on follows from the data
    def _detect(
        self,
        frames: torch.Tensor,
        features: dict[str, torch.Tensor],
        targets: list[dict[str, torch.Tensor]] | None,
        seeds: Sequence[int],
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        self.rpn.fg_bg_sampler.seeds = self.roi_heads.fg_bg_sampler.seeds = seeds
        images = ImageList(frames, [(frames.shape[2], frames.shape[3])] * len(frames))
        proposals, proposal_losses = self.rpn(images, features, targets)
        detections, head_losses = self.roi_heads(features, proposals, images.image_sizes, targets)
        return {**proposal_losses, **head_losses} if self.training else detections


def build_backbone(settings: ModelSettings) -> BackboneWithFPN:
    """A ResNet cut after its last wanted stage, under a feature pyramid; weights drawn at random."""
    block, depths = _BACKBONES[settings.backbone]
    norm = _NORMS[settings.norm]
    resnet = ResNet(block, depths, norm_layer=norm)
    resnet.conv1 = nn.Conv2d(NUM_CHANNELS, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")  # as ResNet draws the others
    if not settings.stem_pooling:
        resnet.maxpool = nn.Identity()
    return BackboneWithFPN(
        resnet,
        return_layers={f"layer{stage + 1}": str(stage) for stage in range(settings.num_stages)},
        in_channels_list=[64 * block.expansion * 2**stage for stage in range(settings.num_stages)],
        out_channels=settings.num_pyramid_channels,
        norm_layer=norm,
    )
