"""One run's result as one line; imported before ranks start, so it needs neither tables nor statistics."""

from hpcai500.score.record.result import Result
from hpcai500.text import si


def summary_line(result: Result) -> str:
    """Quality, VFLOPS, FLOPS and time of a run; only its status if it has no score."""
    if not (result.score and result.flops and result.time):
        return f"seed {result.identity.seed}: {result.status}"
    score = result.score
    reached = "target not reached"
    if score.epochs_to_quality:
        reached = f"target in {score.epochs_to_quality} epochs, {score.time_to_quality_sec:.1f} s"
    unranked = f"; never ranked: {', '.join(result.unranked)}" if result.unranked else ""
    return (
        f"seed {result.identity.seed}: {score.metric} {score.achieved_quality:.4f} "
        f"(target {score.target_quality:g}), VFLOPS {si(score.vflops)}, FLOPS {si(result.flops.flops)}, "
        f"{result.time.total_sec:.1f} s, {reached}{unranked}"
    )
