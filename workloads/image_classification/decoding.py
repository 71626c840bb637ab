"""JPEG bytes as pixels, by whichever decoder is installed."""

import importlib.util
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torchvision.io import ImageReadMode, decode_image, decode_jpeg

from hpcai500.errors import MachineError

# torchvision keeps its decoders for now, and says at each call that TorchCodec will take their place.
warnings.filterwarnings("ignore", "The image decoding and encoding capabilities of TorchVision", DeprecationWarning)

Decoder = Literal["torchvision", "simplejpeg", "nvjpeg"]
Wanted = Literal["auto", "torchvision", "simplejpeg", "nvjpeg"]

Bytes = npt.NDArray[np.uint8]


def choose_decoder(wanted: Wanted, device: torch.device) -> Decoder:
    """The decoder of a run; `auto` takes simplejpeg where it is installed, whose pixels are torchvision's.

    Raises:
        MachineError: if the one that is wanted cannot be used here.
    """
    has_simplejpeg = importlib.util.find_spec("simplejpeg") is not None
    if wanted == "auto":
        return "simplejpeg" if has_simplejpeg else "torchvision"
    if wanted == "simplejpeg" and not has_simplejpeg:
        raise MachineError("data.decoder=simplejpeg: it is not installed", "pip install simplejpeg")
    if wanted == "nvjpeg" and device.type != "cuda":
        raise MachineError("data.decoder=nvjpeg decodes on a GPU alone", "use data.decoder=auto")
    return wanted


def named(decoder: Decoder) -> str:
    """A decoder and the release of the package that brings it."""
    return f"{decoder} {version('simplejpeg' if decoder == 'simplejpeg' else 'torchvision')}"


def decode(data: Bytes, decoder: Decoder = "torchvision") -> torch.Tensor:
    """A file's bytes as uint8 (3, H, W) RGB in channels-last strides, whatever it really is: grey, CMYK, a PNG.

    Raises:
        RuntimeError: if they are no image, or a damaged one. Its text is the decoder's.
    """
    if decoder == "simplejpeg" and (pixels := _by_simplejpeg(data)) is not None:
        return pixels
    return decode_image(torch.from_numpy(data), mode=ImageReadMode.RGB)


def _by_simplejpeg(data: Bytes) -> torch.Tensor | None:
    """None for what simplejpeg takes for no JPEG, or converts otherwise than torchvision."""
    from simplejpeg import decode_jpeg as decode_bytes
    from simplejpeg import decode_jpeg_header

    try:
        if decode_jpeg_header(data)[2] not in ("YCbCr", "Gray", "RGB"):
            return None
        return torch.from_numpy(decode_bytes(data, "RGB")).permute(2, 0, 1)
    except ValueError:
        return None  # torchvision decides, so that a file is good or bad whichever decodes


def decode_on_gpu(files: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Many files at once by nvJPEG, as uint8 (3, H, W) on `device`; what it refuses is decoded on the CPU.

    Raises:
        RuntimeError: as `decode` does.
    """
    try:
        return decode_jpeg(list(files), mode=ImageReadMode.RGB, device=device)
    except RuntimeError:
        return [decode(file.numpy()).to(device) for file in files]
