"""Where in a picture a network looks: Grad-CAM for any network of convolutions that gives a logit per class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def grad_cam(net: nn.Module, image: Tensor, output: int, *, layer: nn.Module | None = None) -> Tensor:
    """float32 (rows, columns), 0 to 1: what of the picture speaks for one class (Selvaraju et al. 2017).

    Where the network averages its last maps and weighs them linearly this is the class activation map of Zhou et al.
    (2016). All 0 where nothing speaks for the class.

    Args:
        image: (1, channels, rows, columns), as the network takes it.
        output: Place of the class among the logits.
        layer: Whose maps are weighed; None: the last that gives maps of more than one point.
    """
    maps: list[Tensor] = []

    def keep(_: nn.Module, __: object, given: object) -> None:
        if isinstance(given, Tensor) and given.dim() == 4 and given.shape[2] * given.shape[3] > 1:
            maps.append(given)

    watched = [layer] if layer is not None else [each for each in net.modules() if not isinstance(each, nn.Dropout)]
    hooks = [each.register_forward_hook(keep) for each in watched]
    was_training = net.training
    try:
        with torch.enable_grad():
            logits = net.eval()(image.detach().clone().requires_grad_())
            if not maps:
                raise ValueError("the network gives no maps that could be weighed")
            (slope,) = torch.autograd.grad(logits[0, output], maps[-1])
    finally:
        net.train(was_training)
        for hook in hooks:
            hook.remove()
    spoken = F.relu((maps[-1].detach() * slope.mean((2, 3), keepdim=True)).sum(1, keepdim=True))
    size = [int(each) for each in image.shape[2:]]
    fine = F.interpolate(spoken, size=size, mode="bilinear", align_corners=False)[0, 0].float().cpu()
    most = float(fine.max())
    return fine / most if most > 0 else fine
