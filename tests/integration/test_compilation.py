"""Compiled steps, as they run on a processor: the same training as eager ones."""

import json
from pathlib import Path

import pytest
import torch
from forked_ranks import train
from short_runs import losses
from torch import nn

from hpcai500.spec.models import parse
from hpcai500.spec.workload import find_workload, load_rules
from hpcai500.train.compilation import clear_gradients, compiled
from hpcai500.train.workload import load_workload

TINY = Path(__file__).parent / "tiny"


@pytest.mark.slow
def test_graphs_that_keep_gradients_in_place_train_as_eager_steps_do_over_ranks_and_micro_batches(tmp_path):
    found = []
    for how in (False, "reduce-overhead"):
        folder = train(TINY, tmp_path / str(how), data=tmp_path, ranks=2, overrides={"execution.compile": how})
        assert json.loads((folder / "run.json").read_text())["settings"]["execution"]["compile"] == how
        found.append(losses(folder))
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_gradients_of_graphs_stay_where_they_are(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, mode: model)
    model = compiled(nn.Linear(2, 1), "reduce-overhead")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    places = [parameter.grad.data_ptr() for parameter in model.parameters()]
    for _ in range(2):
        model(torch.ones(1, 2)).sum().backward()
        assert model.weight.grad.tolist() == [[1.0, 1.0]]
        clear_gradients(optimizer, "reduce-overhead")
        assert model.weight.grad.tolist() == [[0.0, 0.0]]
    assert [parameter.grad.data_ptr() for parameter in model.parameters()] == places


def test_of_the_detector_the_backbone_and_pyramid_are_compiled_in_one_graph_and_nothing_else():
    load_workload(find_workload("extreme_weather"))
    from extreme_weather.model import NUM_CHANNELS, Detector, ModelSettings

    settings = load_rules(find_workload("extreme_weather")).problems["mini"].model
    model = Detector(parse(ModelSettings, settings, "model")).train()
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    target = {"boxes": torch.tensor([[8.0, 8.0, 24.0, 24.0]]), "labels": torch.tensor([1])}
    compiled_model = torch.compile(model, backend=keep)
    compiled_model(torch.randn(1, NUM_CHANNELS, 64, 96), [target], [0])
    (graph,) = graphs
    num_convolutions = sum("conv2d" in str(node.target) for node in graph.graph.nodes)
    assert num_convolutions == sum(isinstance(part, nn.Conv2d) for part in model.backbone.modules())
    assert num_convolutions < sum(isinstance(part, nn.Conv2d) for part in model.modules())
