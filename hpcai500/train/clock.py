"""Reading time on a host whose device works asynchronously."""

import time

import torch


class Clock:
    """Seconds since it was created. The device is synchronised at each reading, and nowhere else."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._origin = time.perf_counter()

    def read_sec(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - self._origin
