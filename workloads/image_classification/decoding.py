"""An image's bytes as pixels: JPEG by whichever decoder is installed, anything else by Pillow."""

import importlib.util
import io
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image, decode_jpeg

from hpcai500.errors import MachineError

# torchvision keeps its decoders for now, and warns at each call that TorchCodec will take their place.
warnings.filterwarnings("ignore", "The image decoding and encoding capabilities of TorchVision", DeprecationWarning)

Decoder = Literal["torchvision", "simplejpeg", "nvjpeg", "dali"]
Wanted = Literal["auto", "torchvision", "simplejpeg", "nvjpeg", "dali"]

BATCHED: tuple[Decoder, ...] = ("nvjpeg", "dali")
"""Decoders that decode a whole batch on the model's device, not in the loader's processes."""

Bytes = npt.NDArray[np.uint8]

_JPEG = b"\xff\xd8\xff"
_OTHERS = ("PNG", "GIF", "WEBP")
_ORIGIN = re.compile(r"^\S+, \S+:\d+, ")
"""Part of torchvision's messages with a function and file of its build."""


def choose_decoder(wanted: Wanted, device: torch.device) -> Decoder:
    """The decoder of a run; `auto` takes simplejpeg if it is installed: its pixels equal torchvision's.

    Raises:
        MachineError: if the one that is wanted cannot be used here.
    """
    has_simplejpeg = importlib.util.find_spec("simplejpeg") is not None
    if wanted == "auto":
        return "simplejpeg" if has_simplejpeg else "torchvision"
    if wanted == "simplejpeg" and not has_simplejpeg:
        raise MachineError("data.decoder=simplejpeg: it is not installed", "pip install simplejpeg")
    if wanted == "dali" and not _has_dali():
        raise MachineError("data.decoder=dali: it is not installed", "pip install hpcai500[dali]")
    if wanted == "nvjpeg" and device.type != "cuda":
        raise MachineError("data.decoder=nvjpeg decodes only on a GPU", "use data.decoder=auto")
    return wanted


def _has_dali() -> bool:
    with suppress(ModuleNotFoundError):  # of `nvidia` itself, which other packages share
        return importlib.util.find_spec("nvidia.dali") is not None
    return False


def named(decoder: Decoder) -> str:
    """A decoder and the version of its package."""
    if decoder == "dali":
        import nvidia.dali

        return f"dali {nvidia.dali.__version__}"
    return f"{decoder} {version('torchvision' if decoder == 'nvjpeg' else decoder)}"


def decode(data: Bytes, decoder: Decoder = "torchvision") -> torch.Tensor:
    """A file's bytes as uint8 (3, H, W) RGB in channels-last strides, whatever it really is: grey, CMYK, a PNG.

    Raises:
        RuntimeError: if they are no image, or a damaged one. Its text is the decoder's.
    """
    if data[:3].tobytes() != _JPEG:
        return _by_pillow(data)
    if decoder == "simplejpeg" and (pixels := _by_simplejpeg(data)) is not None:
        return pixels
    try:
        return decode_image(torch.from_numpy(data), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        raise RuntimeError(_ORIGIN.sub("", str(error))) from error


def _by_pillow(data: Bytes) -> torch.Tensor:
    """The first frame, its alpha left out. torchvision's libpng ends the process at some damaged files."""
    try:
        with Image.open(io.BytesIO(data), formats=_OTHERS) as image:
            image.info.pop("transparency", None)
            if image.mode.startswith("I"):  # grey of 16 bits, which Pillow would clip at 255
                grey = (np.asarray(image).astype(np.int32) + 128) // 257
                pixels = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
            else:
                pixels = np.array(image.convert("RGB"))
    except Image.UnidentifiedImageError as error:
        raise RuntimeError(f"no image of JPEG, {', '.join(_OTHERS)}") from error
    except Exception as error:  # what Pillow raises at a damaged file follows no tree
        raise RuntimeError(str(error) or type(error).__name__) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _by_simplejpeg(data: Bytes) -> torch.Tensor | None:
    """The pixels; None if simplejpeg does not read the file as JPEG or converts it differently from torchvision."""
    from simplejpeg import decode_jpeg as decode_bytes
    from simplejpeg import decode_jpeg_header

    try:
        if decode_jpeg_header(data)[2] not in ("YCbCr", "Gray", "RGB"):
            return None
        return torch.from_numpy(decode_bytes(data, "RGB")).permute(2, 0, 1)
    except ValueError:
        return None  # torchvision decides, so that a file is good or bad whichever decodes


class BatchDecoder:
    """Decoder of many files at once: nvJPEG on a GPU, or DALI on the model's device."""

    def __init__(self, decoder: Decoder, device: torch.device, num_threads: int) -> None:
        self._decoder, self._device, self._num_threads = decoder, device, num_threads
        self._pipelines: dict[int, Any] = {}

    def __call__(self, files: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """uint8 (3, H, W) on the device, valid until the next call. What is refused is decoded on the CPU.

        Raises:
            RuntimeError: as `decode` does.
        """
        try:
            if self._decoder == "dali":
                return self._by_dali(files)
            return decode_jpeg(list(files), mode=ImageReadMode.RGB, device=self._device)
        except RuntimeError:
            return [decode(file.numpy()).to(self._device) for file in files]

    def _by_dali(self, files: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        size = 1 << (len(files) - 1).bit_length()
        if size not in self._pipelines:
            self._pipelines[size] = self._pipeline(size)
        (images,) = self._pipelines[size].run(files=[file.numpy() for file in files])
        return [torch.from_dlpack(images[number]).permute(2, 0, 1) for number in range(len(files))]

    def _pipeline(self, size: int) -> Any:
        """Decodes up to `size` files, on a GPU's engines where there are some; what it returns is there already."""
        from nvidia.dali import fn, pipeline_def, types

        on_gpu = self._device.type == "cuda"

        @pipeline_def(
            batch_size=size,
            num_threads=self._num_threads,
            device_id=self._device.index or 0 if on_gpu else None,
            prefetch_queue_depth=1,
        )
        def decoding() -> Any:
            source = fn.external_source(name="files", no_copy=True)
            return fn.decoders.image(
                source,
                device="mixed" if on_gpu else "cpu",
                output_type=types.RGB,
                adjust_orientation=False,  # as the other decoders
            )

        return decoding()
