"""The determinant of all rows from some of them: exact cases, and rows of a known population."""

import pytest
import torch

from bayesinv.evidence.determinants import deterministic_equivalent, from_above, from_below


def rows(N: int, spectrum: torch.Tensor, seed: int = 0) -> torch.Tensor:
    z = torch.randn(N, len(spectrum), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return z * spectrum.sqrt()


def log_det(K: torch.Tensor) -> float:
    return float(torch.logdet(torch.eye(len(K), dtype=K.dtype) + K))


SPECTRA = {
    "power": 10.0 * torch.arange(1, 3001, dtype=torch.float64) ** -2.0,
    "flat": torch.full((3000,), 1e-3, dtype=torch.float64),
    "low rank": torch.full((20,), 0.5, dtype=torch.float64),
}


@pytest.mark.parametrize("estimate", [from_above, from_below, deterministic_equivalent])
def test_of_all_rows_it_is_the_determinant(estimate):
    X = rows(40, SPECTRA["power"])
    assert float(estimate(X @ X.T, 40)) == pytest.approx(log_det(X @ X.T), rel=1e-10)


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("M", [50, 100])
def test_the_equivalent_finds_the_determinant_of_a_population_where_the_bounds_are_apart(spectrum, M):
    X = rows(500, SPECTRA[spectrum])
    K = X @ X.T
    value = torch.stack([deterministic_equivalent(K[i : i + M, i : i + M], 500) for i in range(0, 500, M)]).mean()
    assert float(value) == pytest.approx(log_det(K), rel=0.05)
    assert from_below(K[:M, :M], 500) < 0.99 * log_det(K) and from_above(K[:M, :M], 500, M // 2) > 1.02 * log_det(K)


def test_beyond_the_reach_of_few_rows_it_stays_between_the_bounds():
    X = rows(2000, SPECTRA["power"])
    K = X @ X.T
    few = K[:25, :25]  # 80 times as many
    assert from_below(few, 2000) < deterministic_equivalent(few, 2000) < from_above(few, 2000)
    assert float(deterministic_equivalent(few, 2000)) == pytest.approx(log_det(K), rel=0.15)


@pytest.mark.parametrize("N", [60, 400, 40_000])  # within reach, and beyond
def test_its_gradient_is_that_of_finite_differences(N):
    X = rows(30, SPECTRA["power"])
    direction = rows(30, SPECTRA["power"], seed=1)
    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = deterministic_equivalent((X + step * direction) @ (X + step * direction).T, N)
    value.backward()
    ends = [float(deterministic_equivalent((X + h * direction) @ (X + h * direction).T, N)) for h in (1e-5, -1e-5)]
    assert float(step.grad) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4)


def test_anchors_count_once_and_the_others_as_often_as_there_are_such_others():
    K = torch.diag(torch.tensor([1.0, 3.0, 7.0, 7.0], dtype=torch.float64))  # rows add log 2, log 4, log 8, log 8
    found = float(from_above(K, 10, num_anchors=2)) / float(torch.tensor(2.0).log())
    assert found == pytest.approx(1 + 2 + (10 - 2) / 2 * 6)
