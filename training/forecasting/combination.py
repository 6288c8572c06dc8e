"""A linear forecast for any series: a combination of autoregressions, by their errors.

    candidates   last season's values; persistence; ridge regressions of 9 to 36 lags, or of one
                 or two seasons, on the values, their differences, or their seasonal differences
    errors       RMSE over the whole horizon, by rolling-origin evaluation: fitted on a beginning of
                 the series, measured on what follows it, up to the end of the validation part
    combination  the mean of the candidates' weights, weighted by error ** -8; in a long series by a
                 higher power

A mean of several forecasts errs less than the one that happened to be best on a short validation
part (J. Bates, C. Granger, "The combination of forecasts", Operational Research Quarterly 20,
1969). Positive series are also tried as logarithms, where a season grows with its level.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from weir.training.forecasting.evaluation import AR_LAGS, AutoRegression, Numbers
from weir.training.forecasting.windows import Parts

_FOLDS = (0.6, 0.8, 1.0)
"""Shares of the training part that the regressions of the rolling origins are fitted on."""
_RIDGES = (1.0, 10.0)
_POWER, _POWER_FROM = 8.0, 300
"""The power of the errors; from so many values on it grows with them, as their errors get surer."""
_ORIGINS = 500
"""At most as many forecasts of a fold are measured."""
_LARGEST = 1e30
"""Errors of regressions that explode."""

Differences = Literal["none", "step", "season", "both"]


@dataclass(frozen=True, slots=True)
class Combination:
    """A linear forecast of one step, fed back for more.

    regression: of the values, or of their logarithms if `is_logarithm`.
    differenced: the share of the weights that read differences, which know no level.
    """

    regression: AutoRegression
    is_logarithm: bool
    differenced: float


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A ridge regression of some lags; without lags the season or persistence itself."""

    differences: Differences
    lags: int
    ridge: float = 0.0

    def span(self, season: int) -> int:
        """Number of past values that it reads."""
        by_season = season if self.differences in {"season", "both"} else 0
        return self.lags + by_season + (self.differences in {"step", "both"})

    def fit(self, values: Numbers, season: int) -> AutoRegression:
        """Fit on values (T,); the weights are of the values, not of their differences."""
        if self.lags == 0:
            return AutoRegression(_undifferenced(np.zeros(0), self.differences, season), 0.0)
        given = _differenced(values, self.differences, season)
        mean = given.mean() if self.differences == "none" else 0.0
        scale = float(np.sqrt(np.square(given - mean).mean())) or 1.0
        windows = np.lib.stride_tricks.sliding_window_view((given - mean) / scale, self.lags + 1)
        inputs = np.column_stack([windows[:, :-1], np.ones(len(windows))])
        penalty = np.diag([self.ridge] * self.lags + [self.ridge if mean == 0.0 else 0.0])
        solution = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ windows[:, -1])
        bias = float(solution[-1] * scale + mean * (1.0 - solution[:-1].sum()))
        return AutoRegression(_undifferenced(solution[:-1], self.differences, season), bias)


def choose_lags(count: int, season: int, horizon: int, most: int) -> int:
    """Return how many past values candidates read that fit a training part of `count` values."""
    shortest = int(_FOLDS[0] * count)
    spans = [
        each.span(season)
        for each in _candidates(season, (AR_LAGS, most))
        if _has_room(each, season, shortest, horizon)
    ]
    return max([*spans, season if 2 * season + horizon < count else 0, 1])


def combine(
    values: Numbers, parts: Parts, *, season: int, horizon: int, lags: int, most: int
) -> Combination:
    """Combine the candidates that read at most `lags` values, by their errors before the test.

    Args:
        values: (T,), all of the series.
        season: 0: none.
        most: the number of lags of the largest candidate without a season.
    """
    ends = [int(share * parts.train_end) for share in _FOLDS]
    candidates = [
        each
        for each in _candidates(season, (min(AR_LAGS, lags), min(most, lags)))
        if each.span(season) <= lags
        and (each.lags == 0 or _has_room(each, season, ends[0], horizon))
    ]
    positive = values[: parts.validation_end].min() > 0.0
    best: tuple[float, bool, Numbers] = (np.inf, False, np.zeros(0))
    for is_logarithm in (False, True)[: 1 + positive]:
        scaled = np.log(values[: parts.validation_end]) if is_logarithm else values
        squares, counts = np.zeros(len(candidates)), 0
        for end, following in zip(ends, [*ends[1:], parts.validation_end], strict=True):
            fitted = [each.fit(scaled[:end], season) for each in candidates]
            fold = _fold(scaled, end, following, lags=lags, horizon=horizon)
            squares += [fold.squares(each, is_logarithm=is_logarithm) for each in fitted]
            counts += fold.count
        errors = np.sqrt(squares / max(counts, 1))
        if errors.min() < best[0]:
            best = (float(errors.min()), is_logarithm, errors)
    least, is_logarithm, errors = best
    power = _POWER * max(1.0, parts.validation_end / _POWER_FROM)
    shares = (np.maximum(errors, 1e-12) / max(least, 1e-12)) ** -power
    shares /= shares.sum()
    scaled = np.log(values[: parts.train_end]) if is_logarithm else values[: parts.train_end]
    weights, bias = np.zeros(lags), 0.0
    for share, candidate in zip(shares, candidates, strict=True):
        fitted_whole = candidate.fit(scaled, season)
        weights[lags - len(fitted_whole.weights) :] += share * fitted_whole.weights
        bias += share * fitted_whole.bias
    differenced = sum(
        share
        for share, candidate in zip(shares, candidates, strict=True)
        if candidate.differences != "none"
    )
    return Combination(AutoRegression(weights, bias), is_logarithm, float(differenced))


def unroll(regression: AutoRegression, horizon: int) -> tuple[Numbers, Numbers]:
    """Weights (horizon, lags) and biases (horizon,) of the regression fed back, for all steps."""
    lags = len(regression.weights)
    weights, biases = np.zeros((horizon, lags)), np.zeros(horizon)
    newest_first = regression.weights[::-1]
    for step in range(horizon):
        fed_back = newest_first[: min(step, lags)]
        earlier = slice(step - len(fed_back), step)
        weights[step] = fed_back[::-1] @ weights[earlier]
        if step < lags:
            weights[step, step:] += regression.weights[: lags - step]
        biases[step] = regression.bias + fed_back[::-1] @ biases[earlier]
    return weights, biases


@dataclass(frozen=True, slots=True)
class _Fold:
    """Forecasts of the values in [end, following) from every origin that reaches one of them.

    histories: (B, lags), or their logarithms.
    truth: (B, horizon); those of `is_counted` lie in the fold.
    """

    histories: Numbers
    truth: Numbers
    is_counted: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Number of forecasts."""
        return int(self.is_counted.sum())

    def squares(self, regression: AutoRegression, *, is_logarithm: bool) -> float:
        """Sum of the squared errors."""
        weights, biases = unroll(regression, self.truth.shape[1])
        with np.errstate(all="ignore"):
            ahead = self.histories[:, -weights.shape[1] :] @ weights.T + biases
            errors = np.exp(ahead) - np.exp(self.truth) if is_logarithm else ahead - self.truth
            squares = np.square(errors)[self.is_counted]
        return float(np.nan_to_num(squares, nan=_LARGEST, posinf=_LARGEST).sum())


def _fold(values: Numbers, end: int, following: int, *, lags: int, horizon: int) -> _Fold:
    origins = np.arange(max(end - horizon + 1, lags), following)
    origins = origins[:: max(1, len(origins) // _ORIGINS)]
    targets = origins[:, None] + np.arange(horizon)
    return _Fold(
        values[origins[:, None] + np.arange(-lags, 0)],
        values[np.minimum(targets, following - 1)],
        (targets >= end) & (targets < following),
    )


def _candidates(season: int, lags: Sequence[int]) -> Iterator[_Candidate]:
    """Persistence, last season's values, and the regressions."""
    yield _Candidate("step", 0)
    if season:
        yield _Candidate("season", 0)
    seasons = (season + 1, 2 * season + 1) if season else ()
    kinds: tuple[Differences, ...] = ("none", "step", "season", "both")
    for differences in kinds if season else kinds[:2]:
        for count in sorted({*lags, *seasons}):
            for ridge in _RIDGES:
                yield _Candidate(differences, count, ridge)


def _has_room(candidate: _Candidate, season: int, count: int, horizon: int) -> bool:
    """Whether enough windows remain of `count` values to fit the candidate."""
    return count - candidate.span(season) - horizon >= max(10, candidate.lags // 2)


def _differenced(values: Numbers, differences: Differences, season: int) -> Numbers:
    if differences in {"season", "both"}:
        values = values[season:] - values[:-season]
    return np.diff(values) if differences in {"step", "both"} else values


def _undifferenced(weights: Numbers, differences: Differences, season: int) -> Numbers:
    """Weights of the values, of weights (lags,) of their differences, the oldest first."""
    # In the lag operator B: (1 - sum of w_k B^k) (1 - B) (1 - B^season).
    polynomial = np.concatenate([[1.0], -weights[::-1]])
    if differences in {"step", "both"}:
        polynomial = np.convolve(polynomial, [1.0, -1.0])
    if differences in {"season", "both"}:
        polynomial = np.convolve(polynomial, [1.0, *np.zeros(season - 1), -1.0])
    return np.asarray(-polynomial[:0:-1])
