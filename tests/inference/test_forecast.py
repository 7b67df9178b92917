"""Starts of an inner iteration, forecast from where it ended before."""

import torch

import bayesinv.inference.forecast
from bayesinv.inference.forecast import Forecast


def ends(points):
    """A smooth map to a (3, 2) array."""
    return [
        torch.stack([p.sin().sum() * torch.ones(2), p.square(), p[0] * p[1] * torch.ones(2)]).to(torch.float64)
        for p in points
    ]


def seen(num, seed=0):
    return torch.rand(num, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5


def learned(num, first=0):
    forecast = Forecast(ends(torch.zeros(1, 2, dtype=torch.float64))[0])
    for point, end in list(zip(seen(num), ends(seen(num)), strict=True))[first:]:
        forecast.add(point, end)
    forecast.fit()
    return forecast


def test_a_forecast_is_closer_than_the_start_and_closer_with_more_points():
    new = seen(10, seed=1)
    error = {
        num: sum(float((learned(num)(p) - e).abs().max()) for p, e in zip(new, ends(new), strict=True))
        for num in (0, 8, 40)
    }
    assert error[40] < 0.5 * error[8] < 0.25 * error[0]


def test_outside_of_what_it_has_seen_it_stays_at_the_edge():
    far = torch.tensor([50.0, 0.0], dtype=torch.float64)
    assert float((learned(40)(far)).abs().max()) < 1.0  # a quadratic would be at 2,500


def test_memory_bounds_what_is_kept_the_latest(monkeypatch):
    monkeypatch.setattr(bayesinv.inference.forecast, "BUDGET", 8 * 6 * 5)
    few = learned(40)
    for p in seen(5, seed=2):
        torch.testing.assert_close(few(p), learned(40, first=35)(p))
