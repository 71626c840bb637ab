"""Results of many systems, made from the files of one real run, and their ranking: for scale and for pages."""

import copy
import hashlib
import json
import random
from pathlib import Path

from hpcai500.score.ranking.collection import collect
from hpcai500.score.ranking.detail import with_details
from hpcai500.score.ranking.document import RankingDocument, ranking_document
from hpcai500.score.ranking.ranking import rank


def write_fleet(folder: Path, base: Path, systems, *, seeds=3, epochs=None, noise=0.03, rng=None, layer=None) -> None:
    """For each (system, world size, speed) the runs of `seeds` seeds, as `base`'s run but for speed and noise.

    `layer(number)` are settings that each of layers 1 to 6 of that system has besides.
    """
    rng = rng or random.Random(0)
    template = json.loads((base / "result.json").read_text())
    if epochs:
        template["epochs"] = _stretched(template["epochs"], epochs)
    template["num_epochs"] = len(template["epochs"])
    files = {name: (base / name).read_text() for name in ("run.json", "system.json") if (base / name).exists()}
    for number, (system, world_size, speed) in enumerate(systems):
        digest = hashlib.sha256(f"{base} {world_size}".encode()).hexdigest()
        for seed in range(seeds):
            result = _result(template, system, world_size, digest, seed, speed * rng.gauss(1, noise), rng)
            place = folder / f"system-{number}" / f"seed{seed}"
            place.mkdir(parents=True)
            for name, text in files.items():
                own = _with_layers(text, layer(number)) if layer and name == "system.json" else text
                (place / name).write_text(own)
            (place / "result.json").write_text(json.dumps(result))


def ranking_of(folder: Path, published=(), **options) -> RankingDocument:
    """The results below `folder`, ranked with `options`, with their curves and layers."""
    collected = collect([folder])
    lists = with_details(rank(collected.runs, **options), collected.runs)
    return ranking_document(lists, published, collected.not_ranked)


def _with_layers(text: str, settings: dict) -> str:
    record = json.loads(text)
    for node in record["nodes"]:
        node["layers"] = {key: {**node["layers"].get(key, {}), **settings} for key in "123456"}
    return json.dumps(record)


def _stretched(epochs: list, count: int) -> list:
    rows = []
    for number in range(count):
        position = number * (len(epochs) - 1) / (count - 1)
        rows.append({**epochs[round(position)], "epoch_num": number + 1})
    return rows


def _result(template, system, world_size, digest, seed, speed, rng):
    result = copy.deepcopy(template)
    result["identity"] |= {
        "system": system, "world_size": world_size, "seed": seed, "experiment_digest": digest,
        "run_id": f"made-{world_size}-seed{seed}", "nodes": max(1, world_size // 4),
    }  # fmt: skip
    score, target = result["score"], result["score"]["target_quality"]
    for epoch in result["epochs"]:
        factor = rng.gauss(1, 0.02)
        epoch["train_sec"] /= speed * factor
        epoch["eval_sec"] /= speed * factor
        epoch["quality"] = min(1.0, epoch["quality"] * rng.gauss(1, 0.01))
    score["achieved_quality"] = result["epochs"][-1]["quality"]
    time = result["time"]
    time["train_sec"] = sum(epoch["train_sec"] for epoch in result["epochs"])
    time["eval_sec"] = sum(epoch["eval_sec"] for epoch in result["epochs"])
    time["total_sec"] = 1.01 * (time["train_sec"] + time["eval_sec"])
    result["flops"]["total"] = sum(epoch["flops"] for epoch in result["epochs"])
    flops = result["flops"]["flops"] = result["flops"]["total"] / result["time"]["total_sec"]
    joules = (result.get("energy") or {}).get("joules")
    score["vflops"] = flops * (score["achieved_quality"] / target) ** score["penalty_exponent"]
    reached = next((e["epoch_num"] for e in result["epochs"] if e["quality"] >= target), None)
    score["epochs_to_quality"] = reached
    score["vflops_per_watt"] = score["vflops"] * time["total_sec"] / joules if joules else None
    until = [epoch["train_sec"] + epoch["eval_sec"] for epoch in result["epochs"][: reached or 0]]
    score["time_to_quality_sec"] = 1.01 * sum(until) if reached else None
    return result
