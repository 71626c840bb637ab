"""The layers of a torchvision model, as predictions need them: parameters and forward FLOPs, in forward order."""

import torch
from torch import nn


def layers_of(model: nn.Module, image_size: int) -> list[tuple[float, float]]:
    """(parameters, FLOPs) of each layer that has either; MAC = 2, one image."""
    found: dict[nn.Module, list[float]] = {}

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        parameters = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        flops = 0.0
        if isinstance(module, nn.Conv2d):
            flops = 2.0 * module.weight.numel() * output.shape[-1] * output.shape[-2]
        elif isinstance(module, nn.Linear):
            flops = 2.0 * module.weight.numel()
        found[module] = [parameters, flops]

    hooks = [module.register_forward_hook(note) for module in model.modules() if not list(module.children())]
    with torch.no_grad():
        model.eval()(torch.empty(1, 3, image_size, image_size, device=next(model.parameters()).device))
    for hook in hooks:
        hook.remove()
    return [(parameters, flops) for parameters, flops in found.values() if parameters or flops]
