"""Forecasting networks: the next values of a series from its last values and other columns.

Inputs and outputs are in measured units; the scaling is part of the network. The window has the
same length as in training. AR and NARX forecast one step and feed their outputs back for further
steps; recurrent networks forecast all steps at once. The argument name of `Forecaster.forward` is
the input name of the exported graph.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from weir.training.errors import ModelError
from weir.training.models.recurrent import Cell, Recurrent

Kind = Literal["ar", "narx", "rnn", "gru", "lstm"]

_SMALLEST = 1e-6
_LARGEST_LOGARITHM = 88.0
"""exp of it is below the greatest FP32 number."""


class OneStep(nn.Module):
    """The next value from lagged ones: AR without hidden units, NARX with them.

    NARX: y(t+1) = f(y(t) … y(t-n+1), u(t) … u(t-m+1)), f a multilayer perceptron (T. Lin, B. Horne,
    P. Tino, C. Giles, "Learning long-term dependencies in NARX recurrent neural networks", IEEE
    Trans. Neural Networks 7(6), 1996). Takes a window (B, T, F), returns (B, 1).

    Deviation: a linear map may be added to the perceptron, as in AR. tanh saturates at levels that
    training never saw; a linear map does not.

    Args:
        features: F, the series itself first.
        lags: number of last values of the series that are read.
        hidden: units of the perceptron; None: the linear map only.
        centred: read the series' values less their mean in the window, and add `level` times the
            mean. Levels that training never saw then saturate nothing, and training cannot change
            what becomes of a level.
    """

    level: Tensor

    def __init__(
        self,
        *,
        features: int,
        lags: int,
        exogenous_lags: int,
        hidden: int | None,
        dropout: float = 0.0,
        linear: bool = True,
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.lags = lags
        self.exogenous_lags = exogenous_lags
        self.centred = centred
        if centred:
            self.register_buffer("level", torch.ones(1))
        width = lags + (features - 1) * exogenous_lags
        self.linear = _persisting(width, 1, lags - 1) if linear or hidden is None else None
        self.perceptron = (
            None
            if hidden is None
            else nn.Sequential(
                nn.Linear(width, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, 1)
            )
        )

    def begin_as(self, weights: Tensor, biases: Tensor) -> None:
        """Begin as the first step of a linear forecast; see `Forecaster.begin_as`."""
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)[:, : self.lags] = weights[:1]
            nn.init.zeros_(self.linear.bias).add_(biases[:1])
            if self.centred:
                self.level.copy_(weights[:1].sum(dim=1))
            if self.perceptron is not None:
                _silence(self.perceptron[-1])

    def forward(self, window: Tensor) -> Tensor:
        """The next value (B, 1) of a window (B, T, F)."""
        return self.after(window[:, :, 0], window[:, :, 1:])

    def after(self, own: Tensor, others: Tensor) -> Tensor:
        """The next value (B, 1) of the series (B, T) and the other columns (B, T, F - 1)."""
        own = own[:, -self.lags :]  # (B, lags)
        others = others[:, -self.exogenous_lags :].flatten(1)  # (B, exogenous_lags · (F - 1))
        mean = own.mean(dim=1, keepdim=True)  # (B, 1)
        own = own - mean if self.centred else own
        read = torch.cat([own, others], dim=1) if others.shape[1] else own
        parts: list[Tensor] = [
            part(read) for part in (self.linear, self.perceptron) if part is not None
        ]
        ahead = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return ahead + mean * self.level if self.centred else ahead


class FedBack(nn.Module):
    """Recursive forecast: many steps of a one-step network.

    In training it returns one step, from measured values (series-parallel form). In eval mode it
    returns `horizon` steps, each from its earlier outputs (parallel form). The future of the other
    columns is unknown; they keep their last values.
    """

    def __init__(self, step: OneStep, horizon: int) -> None:
        super().__init__()
        self.step = step
        self.horizon = horizon

    def begin_as(self, weights: Tensor, biases: Tensor) -> None:
        """Begin as a linear forecast of one step, which is fed back as well."""
        self.step.begin_as(weights, biases)

    def forward(self, window: Tensor) -> Tensor:
        """One step (B, 1) in training, else (B, horizon), of a window (B, T, F)."""
        own, others = window[:, :, 0], window[:, :, 1:]  # (B, T), (B, T, F - 1)
        ahead: list[Tensor] = []
        for number in range(1 if self.training else self.horizon):
            if number:
                own = torch.cat([own[:, 1:], ahead[-1]], dim=1)
                others = torch.cat([others[:, 1:], others[:, -1:]], dim=1)
            ahead.append(self.step.after(own, others))  # (B, 1)
        return torch.cat(ahead, dim=1)


class ReadWhole(nn.Module):
    """Direct forecast: all steps at once from the last state of a recurrent network.

    With `linear`, a linear map of the window is added, for the reason given in `OneStep`. It is the
    autoregressive part of G. Lai et al., "Modeling long- and short-term temporal patterns", SIGIR
    2018. `centred`: as in `OneStep`.
    """

    level: Tensor

    def __init__(
        self,
        encoder: Recurrent,
        *,
        lags: int,
        features: int,
        horizon: int,
        dropout: float,
        linear: bool,
        centred: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.centred = centred
        if centred:
            self.register_buffer("level", torch.ones(horizon))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(encoder.width, horizon)
        last = (lags - 1) * features
        self.linear = _persisting(lags * features, horizon, last) if linear else None

    def begin_as(self, weights: Tensor, biases: Tensor) -> None:
        """Begin as a linear forecast; see `Forecaster.begin_as`."""
        if self.linear is not None:
            lags = weights.shape[1]
            each = self.linear.weight.shape[1] // lags
            nn.init.zeros_(self.linear.weight)[:, ::each] = weights
            nn.init.zeros_(self.linear.bias).add_(biases)
            if self.centred:
                self.level.copy_(weights.sum(dim=1))
            _silence(self.output)

    def forward(self, window: Tensor) -> Tensor:
        """Forecasts (B, horizon) of a window (B, T, F)."""
        mean = window[:, :, 0].mean(dim=1, keepdim=True)  # (B, 1)
        if self.centred:
            own = window[:, :, :1] - mean[:, :, None]  # (B, T, 1)
            window = own if window.shape[2] == 1 else torch.cat([own, window[:, :, 1:]], dim=2)
        lengths = torch.full((window.shape[0],), window.shape[1], device=window.device)
        last = self.encoder(window, lengths).last  # (B, hidden)
        ahead: Tensor = self.output(self.dropout(last))  # (B, horizon)
        if self.linear is not None:
            ahead = ahead + self.linear(window.flatten(1))
        return ahead + mean * self.level if self.centred else ahead


class Forecaster(nn.Module):
    """A forecasting network with scaling of its inputs and outputs.

    Args:
        core: maps scaled values (B, T, F) to scaled forecasts (B, horizon).
        mean, std: of each column, over its training part.
        is_logarithm: whether the core reads and forecasts logarithms of the series' own values;
            `mean` and `std` of its column are then those of the logarithms.
    """

    mean: Tensor
    std: Tensor
    floor: Tensor

    def __init__(
        self,
        core: FedBack | ReadWhole,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        is_logarithm: bool = False,
    ) -> None:
        super().__init__()
        self.core = core
        self.is_logarithm = is_logarithm
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        if is_logarithm:
            # Values at and below 0 have no logarithm; they count as this one.
            self.register_buffer("floor", torch.tensor(_SMALLEST))

    @torch.no_grad()
    def begin_as(self, weights: Tensor, biases: Tensor) -> None:
        """Set the weights so that the network begins as a linear forecast.

        Without a linear map, `linear=False`, nothing changes.

        Args:
            weights: (horizon, lags), the oldest lag first, of the series' own values, or of their
                logarithms.
            biases: (horizon,), in the same unit.
        """
        mean, std = self.mean[0], self.std[0]
        self.core.begin_as(weights, (biases + mean * (weights.sum(dim=1) - 1.0)) / std)

    def forward(self, history: Tensor) -> Tensor:
        """Forecasts (B, horizon) of values (B, T, F); (B, 1) in training, see `FedBack`."""
        if self.is_logarithm:
            own = history[:, :, :1].maximum(self.floor).log()  # (B, T, 1)
            history = own if history.shape[2] == 1 else torch.cat([own, history[:, :, 1:]], dim=2)
        # Of the window's shape: ONNX Runtime would go through a few columns a time step at a time.
        mean, std = (each.expand(history.shape[1:]) for each in (self.mean, self.std))  # (T, F)
        scaled = (history - mean) / std
        ahead: Tensor = self.core(scaled)
        ahead = ahead * self.std[0] + self.mean[0]
        return ahead.clamp(max=_LARGEST_LOGARITHM).exp() if self.is_logarithm else ahead


def build_forecaster(
    kind: Kind,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    lags: int,
    horizon: int,
    exogenous_lags: int | None = None,
    hidden: int = 16,
    layers: int = 1,
    dropout: float = 0.0,
    linear: bool = True,
    is_centred: bool = False,
    is_logarithm: bool = False,
) -> Forecaster:
    """Build a network with fresh weights, drawn from torch's global generator.

    Args:
        kind: ar: a linear map of the lags; narx: a perceptron of them; else a recurrent cell.
        mean, std: of each of the F columns, the series first.
        exogenous_lags: lags of the other columns, for ar and narx; None: `lags`.
        hidden: units of a layer; ar has none.
        is_centred: see `OneStep`.
        is_logarithm: see `Forecaster`.
    """
    features = len(mean)
    core: FedBack | ReadWhole
    if kind in {"ar", "narx"}:
        step = OneStep(
            features=features,
            lags=lags,
            exogenous_lags=exogenous_lags or lags,
            hidden=None if kind == "ar" else hidden,
            dropout=dropout,
            linear=linear,
            centred=is_centred,
        )
        core = FedBack(step, horizon)
    else:
        if exogenous_lags is not None:
            raise ModelError(f"{kind}: expected {lags} lags of each column, got {exogenous_lags}")
        cell: Cell = kind  # type: ignore[assignment]  # what is left of the kinds
        encoder = Recurrent(cell, features, hidden, layers=layers, dropout=dropout)
        core = ReadWhole(
            encoder,
            lags=lags,
            features=features,
            horizon=horizon,
            dropout=dropout,
            linear=linear,
            centred=is_centred,
        )
    return Forecaster(core, mean, std, is_logarithm=is_logarithm)


def _silence(layer: nn.Module) -> None:
    """Set a linear layer to 0: it learns from there, and the layers below it after that."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _persisting(inputs: int, outputs: int, last: int) -> nn.Linear:
    """A linear map initialised as persistence: each output is the input at index `last`."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        nn.init.zeros_(layer.weight)[:, last] = 1.0
        nn.init.zeros_(layer.bias)
    return layer
