"""Every kind of network that a model card may name."""

from __future__ import annotations

from torch import nn

from pipelines.models.denoiser import Denoiser
from pipelines.models.detector import SqueezeDetector
from pipelines.models.layout import LayoutClassifier
from pipelines.models.mobile import MobileClassifier, MobileLocator
from pipelines.models.squeeze import SqueezeClassifier, SqueezeLocator
from pipelines.models.unet import ResidualUNet, SqueezeOutliner, SqueezeUNet
from pipelines.models.unet3d import ResidualUNet3D

KINDS: dict[str, type[nn.Module]] = {
    "denoiser": Denoiser,
    "layout_classifier": LayoutClassifier,
    "mobile_classifier": MobileClassifier,
    "mobile_locator": MobileLocator,
    "residual": ResidualUNet,
    "residual3d": ResidualUNet3D,
    "squeeze": SqueezeUNet,
    "squeeze_classifier": SqueezeClassifier,
    "squeeze_locator": SqueezeLocator,
    "squeeze_outliner": SqueezeOutliner,
    "squeeze_detector": SqueezeDetector,
}
