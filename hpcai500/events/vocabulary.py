"""Every legal key of events.log: MLPerf's own word if there is one, otherwise a key that begins with `hpcai500.`."""

from enum import StrEnum

TOKEN = ":::MLLOG"
"""The beginning of an event's line."""


class Type(StrEnum):
    POINT = "POINT_IN_TIME"
    START = "INTERVAL_START"
    END = "INTERVAL_END"


class Key(StrEnum):
    # what is submitted
    SUBMISSION_ORG = "submission_org"
    SUBMISSION_PLATFORM = "submission_platform"
    SUBMISSION_DIVISION = "submission_division"
    SUBMISSION_BENCHMARK = "submission_benchmark"
    SUBMISSION_STATUS = "submission_status"
    # start-up
    CACHE_CLEAR = "cache_clear"
    INIT_START = "init_start"
    INIT_STOP = "init_stop"
    STAGING_START = "staging_start"
    STAGING_STOP = "staging_stop"
    # hyper-parameters and data
    SEED = "seed"
    TRAIN_SAMPLES = "train_samples"
    EVAL_SAMPLES = "eval_samples"
    GLOBAL_BATCH_SIZE = "global_batch_size"
    GRADIENT_ACCUMULATION_STEPS = "gradient_accumulation_steps"
    OPT_NAME = "opt_name"
    OPT_BASE_LEARNING_RATE = "opt_base_learning_rate"
    OPT_LEARNING_RATE_WARMUP_EPOCHS = "opt_learning_rate_warmup_epochs"
    OPT_WEIGHT_DECAY = "opt_weight_decay"
    # the run
    RUN_START = "run_start"
    RUN_STOP = "run_stop"
    EPOCH_START = "epoch_start"
    EPOCH_STOP = "epoch_stop"
    EVAL_START = "eval_start"
    EVAL_STOP = "eval_stop"
    EVAL_ACCURACY = "eval_accuracy"
    # our own
    RUN = "hpcai500.run"
    """Identity: run id, experiment digest, code digest, versions."""
    DATASET = "hpcai500.dataset"
    """Digest of the index or manifest, and how many samples it holds."""
    INPUT = "hpcai500.input"
    """How samples are read: decoder, layout on disk, processes, as the workload states them."""
    FLOPS_PER_SAMPLE = "hpcai500.flops_per_sample"
    """The count: mean, spread, number of batches, convention."""
    MODEL = "hpcai500.model"
    """The model's structure: digest, parameters, FLOPs of each layer."""
    WARM_UP = "hpcai500.warm_up"
    """Seconds of compilation and warm-up on synthetic data, outside the clock."""
    EPOCH = "hpcai500.epoch"
    """One record per epoch: loss, quality, samples, FLOPs, seconds, learning rate, energy."""
    ENERGY = "hpcai500.energy"
    """Sources of the energy figures, or why there are none."""
    PEAK_MEMORY = "hpcai500.peak_memory"
    INTERRUPTED = "hpcai500.interrupted"
    """A signal stopped the run: the epoch and the step of the checkpoint."""
    RESUMED = "hpcai500.resumed"
    """Training continues: from where, how long it was down, how much work is repeated."""
    RESUMED_FROM = "hpcai500.continued"
    """The run starts from another run's checkpoint: which, and from where."""
    FAILURE = "hpcai500.failure"
    """Why a run was aborted."""
    LAYER = "hpcai500.layer"
    """One layer of a foreign program, as its log states it; the metadata has the layer's number."""


class RunStatus(StrEnum):
    """`run_stop`'s metadata in MLPerf's words."""

    SUCCESS = "success"
    ABORTED = "aborted"
