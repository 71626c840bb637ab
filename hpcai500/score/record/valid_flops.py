"""Valid FLOPS (HPC AI500 V2.0): FLOPS, penalised when the model misses its target quality."""

CONVENTION = "convolutions and matrix products as executed, forward and backward, MAC = 2"
"""Which FLOPs are counted, as every result names them."""


def valid_flops(flops: float, achieved_quality: float, target_quality: float, penalty_exponent: int) -> float:
    """`flops * (achieved_quality / target_quality) ** penalty_exponent`, in the unit of `flops`.

    Not capped above the target. The same penalty turns FLOPS per watt into VFLOPS per watt.
    """
    return float(flops * (achieved_quality / target_quality) ** penalty_exponent)


def published_flops(flops_per_sample: float, num_epochs: int, num_samples: int, time_sec: float) -> float:
    """FLOPS by the published lists' convention: a fixed count per sample, over the whole training time."""
    return flops_per_sample * num_epochs * num_samples / time_sec
