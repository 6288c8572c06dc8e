"""Forecasters: scaling, recursive forecasts, and the inputs of each kind."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from weir.training.errors import ModelError
from weir.training.forecasting.combination import unroll
from weir.training.forecasting.evaluation import AutoRegression
from weir.training.models.series import FedBack, Forecaster, Kind, OneStep, build_forecaster

KINDS: tuple[Kind, ...] = ("ar", "narx", "rnn", "gru", "lstm")
LAGS, HORIZON = 6, 4


def build(kind: Kind, **changes: list[float]) -> Forecaster:
    torch.manual_seed(0)
    scaling = {"mean": [50.0, 2.0], "std": [40.0, 0.5], **changes}
    return build_forecaster(
        kind, lags=LAGS, horizon=HORIZON, mean=scaling["mean"], std=scaling["std"]
    ).eval()


def histories(features: int = 2) -> Tensor:
    noise = torch.randn(5, LAGS, features, generator=torch.Generator().manual_seed(1))
    return 50.0 + 40.0 * noise


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_series_a_thousand_times_as_great_has_forecasts_a_thousand_times_as_great(
    kind: Kind,
) -> None:
    history = histories()

    once = build(kind)(history)
    thousand = build(kind, mean=[50e3, 2.0], std=[40e3, 0.5])(history * torch.tensor([1000.0, 1.0]))

    assert once.shape == (5, HORIZON)
    torch.testing.assert_close(thousand, 1000 * once, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("kind", ["ar", "narx"])
@torch.no_grad()
def test_training_gives_one_step_and_evaluation_feeds_it_back(kind: Kind) -> None:
    network = build(kind)
    history = histories()

    ahead = network(history)
    window = history
    for lead in range(HORIZON):
        following = network.train()(window)
        assert following.shape == (5, 1)
        torch.testing.assert_close(following[:, 0], ahead[:, lead])
        row = torch.cat([following, history[:, -1, 1:]], dim=1)
        window = torch.cat([window[:, 1:], row[:, None]], dim=1)


@torch.no_grad()
def test_ar_with_known_weights_is_the_recursion_itself() -> None:
    network = build_forecaster("ar", mean=[50.0], std=[40.0], lags=2, horizon=12).eval()
    assert isinstance(network.core, FedBack) and network.core.step.linear is not None
    # A line goes on: y(t+1) = 2 y(t) - y(t-1), whatever the scale.
    network.core.step.linear.weight.copy_(torch.tensor([[-1.0, 2.0]]))

    ahead = network(torch.tensor([[[100.0], [103.0]]]))

    expected = 103.0 + 3.0 * np.arange(1, 13)
    np.testing.assert_allclose(ahead[0].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["ar", "rnn", "lstm"])
@torch.no_grad()
def test_the_linear_map_begins_as_persistence(kind: Kind) -> None:
    network = build(kind)
    if kind != "ar":
        nn.init.zeros_(network.core.output.weight)  # type: ignore[union-attr,arg-type]
        nn.init.zeros_(network.core.output.bias)  # type: ignore[union-attr,arg-type]
    history = histories()

    torch.testing.assert_close(network(history), history[:, -1:, 0].expand(-1, HORIZON))


@torch.no_grad()
def test_only_the_lags_are_read() -> None:
    step = OneStep(features=2, lags=2, exogenous_lags=3, hidden=4).eval()
    window = histories()
    changed = window.clone()
    changed[:, :-2, 0] += 1.0
    changed[:, :-3, 1] += 1.0

    assert torch.equal(step(window), step(changed))
    changed[:, -3, 1] += 1.0
    assert not torch.equal(step(window), step(changed))


def test_parameters_are_those_of_the_formula() -> None:
    def count(kind: Kind, **settings: bool) -> int:
        network = build_forecaster(
            kind, mean=[0.0, 0.0], std=[1.0, 1.0], lags=LAGS, horizon=HORIZON, hidden=8, **settings
        )
        return sum(each.numel() for each in network.parameters())

    linear, perceptron = 2 * LAGS + 1, (2 * LAGS + 1) * 8 + 8 + 1
    assert count("ar") == linear
    assert count("narx", linear=False) == perceptron
    assert count("narx") == linear + perceptron


def test_a_cell_reads_every_column_alike() -> None:
    with pytest.raises(ModelError, match="lstm: expected 6 lags of each column, got 3"):
        build_forecaster(
            "lstm", mean=[0.0], std=[1.0], lags=LAGS, horizon=HORIZON, exogenous_lags=3
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_centred", [False, True], ids=["level", "centred"])
@pytest.mark.parametrize("is_logarithm", [False, True], ids=["values", "logarithms"])
@torch.no_grad()
def test_a_network_begins_as_a_linear_forecast(
    kind: Kind, *, is_centred: bool, is_logarithm: bool
) -> None:
    """Against numpy: the regression fed back, of the values or of their logarithms."""
    torch.manual_seed(0)
    network = build_forecaster(
        kind,
        lags=LAGS,
        horizon=HORIZON,
        mean=[4.0, 2.0],
        std=[0.5, 0.5],
        is_centred=is_centred,
        is_logarithm=is_logarithm,
    ).eval()
    own = np.exp(np.random.default_rng(0).normal(4.0, 0.2, (5, LAGS)))
    regression = AutoRegression(np.array([0.1, -0.2, 0.3, 0.1, -0.4, 0.9]), 0.8)
    ahead = regression.forecast(np.log(own) if is_logarithm else own, HORIZON)

    network.begin_as(*(torch.from_numpy(each).float() for each in unroll(regression, HORIZON)))
    found = network(torch.from_numpy(np.stack([own, own], axis=2)).float())

    np.testing.assert_allclose(found.numpy(), np.exp(ahead) if is_logarithm else ahead, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_centred_network_moves_with_the_level(kind: Kind) -> None:
    """Whatever training made of it: here its weights are random."""
    network = build_forecaster(
        kind, lags=LAGS, horizon=HORIZON, mean=[50.0], std=[40.0], is_centred=True
    ).eval()
    for number, parameter in enumerate(network.parameters()):
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(number))
    history = histories(features=1)

    torch.testing.assert_close(
        network(history + 1000.0), network(history) + 1000.0, rtol=0.0, atol=0.02
    )


@torch.no_grad()
def test_values_without_a_logarithm_count_as_the_floor() -> None:
    network = build_forecaster(
        "ar", lags=2, horizon=1, mean=[0.0], std=[1.0], is_logarithm=True
    ).eval()
    network.floor.fill_(0.5)

    ahead = network(torch.tensor([[[1.0], [-3.0]], [[1.0], [0.0]], [[1.0], [8.0]]]))

    torch.testing.assert_close(ahead, torch.tensor([[0.5], [0.5], [8.0]]))


@torch.no_grad()
def test_a_forecast_that_explodes_stays_finite() -> None:
    network = build_forecaster(
        "ar", lags=1, horizon=HORIZON, mean=[0.0], std=[1.0], is_logarithm=True
    ).eval()
    network.begin_as(torch.full((HORIZON, 1), 3.0), torch.zeros(HORIZON))

    assert network(torch.tensor([[[1e9]]])).isfinite().all()
