"""Anderson acceleration."""

import torch

from bayesinv.evidence.anderson import Anderson, CautiousAnderson


def _linear(rates):
    """g(u) = A u + 1 with eigenvalues ``rates`` in a random basis, and its fixed point."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(len(rates), len(rates), generator=generator, dtype=torch.float64))[0]
    A = basis @ torch.diag(torch.tensor(rates, dtype=torch.float64)) @ basis.T
    one = torch.ones(len(rates), dtype=torch.float64)
    return (lambda u: u @ A.T + one), torch.linalg.solve(torch.eye(len(rates), dtype=torch.float64) - A, one)


def test_a_slow_linear_iteration_ends_in_as_many_steps_as_it_has_rates():
    g, fixed = _linear([0.99, 0.9, 0.5, 0.1])
    u = torch.zeros(4, dtype=torch.float64)
    steps = Anderson(u)
    for _ in range(8):
        u = steps.next(g(u))
    torch.testing.assert_close(u, fixed, rtol=1e-5, atol=1e-5)


def test_at_the_fixed_point_it_stays():
    g, fixed = _linear([0.9, 0.2])
    steps, u = Anderson(fixed), fixed
    for _ in range(3):
        u = steps.next(g(u))
    torch.testing.assert_close(u, fixed)


def test_a_step_that_would_run_far_off_is_the_plain_one():
    """The secant of u + 1 + 1e-6 u points a million plain steps back."""
    u = torch.zeros(1, dtype=torch.float64)
    steps = Anderson(u)
    for _ in range(3):
        image = u * (1 + 1e-6) + 1
        u = steps.next(image)
        assert u == image


def test_cautious_steps_are_plain_far_away_and_after_one_that_ran_off():
    """g(u) = u / 2: the first accelerated step is g(u), and the second the fixed point."""
    u = torch.tensor([1.0, 2.0], dtype=torch.float64)
    steps = CautiousAnderson()
    for _ in range(3):
        assert torch.equal(steps.next(u, 0.5 * u, near=False), 0.5 * u)
    assert torch.equal(steps.next(0.5 * u, 0.25 * u, near=True), 0.25 * u)
    assert float(steps.next(0.25 * u, 0.125 * u, near=True).norm()) < 1e-6
    for _ in range(3):  # a step four times as long as the shortest, and two more
        assert torch.equal(steps.next(u, 0.5 * u, near=True), 0.5 * u)
    assert torch.equal(steps.next(u, 0.5 * u, near=True), 0.5 * u)  # the first of new ones
    assert float(steps.next(0.5 * u, 0.25 * u, near=True).norm()) < 1e-6


def test_cautious_steps_keep_the_shape_and_find_the_fixed_point():
    u = torch.zeros(2, 3, dtype=torch.float64)
    steps = CautiousAnderson()
    for _ in range(10):
        u = steps.next(u, u.cos(), near=True)
    torch.testing.assert_close(u, u.cos(), atol=1e-6, rtol=0)
