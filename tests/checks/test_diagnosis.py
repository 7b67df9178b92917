"""posterior.check(): every verdict is given where it belongs, and not where it does not."""

import math

import pytest
import torch
from torch import nn

from bayesinv import GaussianProcess, InvarianceModel
from bayesinv.checks import Verdict, Verdicts
from bayesinv.data.container import Data
from bayesinv.extents.priors import UniformExtent
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.transforms import Affine2d, AmplitudeScale, SignFlip, TimeShift
from tests.fakes import NAMES, KnownModel, make_data, make_posterior, make_result


def levels(posterior, name, **options):
    return [v.level for v in posterior.check(**options).named(name)]


def draws_of(*columns):
    return torch.stack([torch.as_tensor(c, dtype=torch.float64) for c in columns], -1)[None]


def grid(low, high, num=400):
    return torch.linspace(low, high, num, dtype=torch.float64)


def test_a_good_fit_has_nothing_serious():
    verdicts = make_posterior(weighted=True).check()
    assert verdicts.level in ("ok", "note")
    assert {v.name for v in verdicts} >= {"convergence", "importance", "prior", "classes"}
    assert verdicts.serious == []


def test_names_of_levels_are_checked():
    with pytest.raises(ValueError, match="level: expected one of"):
        Verdict("importance", "bad", "...")


def test_it_prints_every_verdict_with_what_to_do():
    verdicts = Verdicts([Verdict("a", "ok", "fine"), Verdict("bound", "serious", "at <the> end " * 12, "widen it")])
    lines = str(verdicts).splitlines()
    assert lines[0] == "ok       a      fine" and lines[1].startswith("serious  bound  at <the> end")
    assert lines[-1].strip() == "-> widen it"
    assert max(len(line) for line in lines) <= 110
    page = verdicts._repr_html_()
    assert "&lt;the&gt;" in page and "<the>" not in page and "widen it" in page
    assert str(Verdicts()) == "nothing to check" and Verdicts().level == "ok"


@pytest.mark.parametrize(
    ("k", "level"), [(0.3, "ok"), (0.61, "ok"), (0.62, "serious"), (math.inf, "serious"), (math.nan, "serious")]
)
def test_importance(k, level):
    """The limit for 400 draws is 0.616."""
    assert levels(make_posterior(weighted=True, pareto_k=k), "importance") == [level]


def test_importance_names_the_limit_and_the_draws():
    (bad,) = make_posterior(weighted=True, pareto_k=0.65).check().named("importance")
    assert "above 0.62, the limit for 400 draws" in bad.message
    assert "num_draws=1600" in bad.advice and "nuts" in bad.advice
    fine, rough = (make_posterior(weighted=True, pareto_k=k).check().named("importance")[0] for k in (0.4, 0.55))
    assert "no standard error" in rough.message and "no standard error" not in fine.message


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["ok"]),
        ({"divergences": 0, "saturated": 0}, ["ok"]),
        ({"divergences": 8}, ["ok", "note"]),  # of 800 draws: one in a hundred
        ({"divergences": 9}, ["ok", "serious"]),
        ({"saturated": 80}, ["ok"]),
        ({"saturated": 81}, ["ok", "note"]),
    ],
)
def test_trajectories(settings, expected):
    assert levels(make_posterior(chains=2, settings=settings), "convergence") == expected


def test_verdicts_on_extents_use_the_weights_of_the_summary():
    """Half of the draws lie at the end of the prior, and the weights give them nothing."""
    rotation = torch.cat([grid(0.5, 0.6, 200), grid(3.05, 3.14, 200)])
    log_weights = torch.cat([torch.zeros(200), torch.full((200,), -30.0)]).double().log_softmax(0)
    columns = draws_of(rotation, grid(0.05, 0.1), grid(0.01, 0.02))
    facts = {"extents": columns, "log_weights": log_weights}
    assert levels(make_posterior(**facts, pareto_k=0.1), "bound") == []
    assert levels(make_posterior(**facts, pareto_k=0.9), "bound") == ["note"]


def test_a_minibatch_fit_has_no_weights_and_says_so():
    assert levels(make_posterior(), "importance") == ["note"]


@pytest.mark.parametrize(("rhat", "level"), [(1.04, "ok"), (1.06, "serious"), (math.inf, "serious")])
def test_chains(rhat, level):
    assert levels(make_posterior(chains=2, rhat=(1.0, rhat, 1.0)), "convergence") == [level]


def test_a_run_that_did_not_converge():
    stopped = make_posterior(converged=False).check().named("convergence")[0]
    assert stopped.level == "serious" and "after 300 evaluations without reaching an optimum" in stopped.message
    assert not make_posterior(converged=False).check().named("prior")  # it is where it started
    broken = make_posterior(converged=False, trace=()).check().named("convergence")[0]
    assert "broke off" in broken.message
    short = make_posterior(converged=False, settings={"training": {}}).check().named("convergence")[0]
    assert short.advice == "Raise epochs."


def test_few_effective_draws():
    heavy = torch.full((400,), -40.0, dtype=torch.float64)
    heavy[:5] = 0.0
    heavy[5:8] = -math.inf
    few = make_posterior(weighted=True, log_weights=heavy.log_softmax(0)).check().named("draws")
    assert len(few) == 2 and "at 3 draws" in few[0].message and "worth 5 independent" in few[1].message
    assert levels(make_posterior(weighted=True), "draws") == []


def test_an_extent_at_the_end_of_its_prior():
    at_end = draws_of(grid(3.05, 3.14), grid(0.05, 0.1), grid(0.01, 0.02))
    found = make_posterior(extents=at_end).check().named("bound")
    assert len(found) == 1 and "rotation" in found[0].message and "all that this symmetry can do" in found[0].message
    spread = draws_of(grid(0.0, math.pi), grid(0.05, 0.1), grid(0.01, 0.02))  # as the prior: a twentieth at the end
    assert levels(make_posterior(extents=spread), "bound") == []


def signal_posterior(transform, *columns):
    x = torch.randn(12, 1, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = KnownModel(GaussianProcess(num_features=64), transform)
    result = make_result(extents=draws_of(*columns))
    return InvariancePosterior(model, Data(x, torch.arange(12) % 2, num_classes=2), result)


def test_an_extent_at_the_end_that_its_constructor_set():
    verdict = signal_posterior(TimeShift(100.0, 0.25), grid(0.24, 0.25)).check().named("bound")[0]
    assert "±0.2 s" in verdict.message and "might reach further" in verdict.message
    assert "all that" not in verdict.message
    assert verdict.advice == "Raise largest=0.25 of TimeShift and fit again."
    unset = signal_posterior(TimeShift(), grid(0.97, 1.0)).check().named("bound")[0]
    assert "±1.0 samples" in unset.message and "sampling_rate=" in unset.advice and "raise largest=" in unset.advice
    capped = [TimeShift(100.0, 0.25), AmplitudeScale()]
    model = InvarianceModel(GaussianProcess(num_features=64), capped, priors={"time_shift": UniformExtent(0.0, 0.1)})
    result = make_result(extents=draws_of(grid(0.099, 0.1), grid(0.1, 0.2)))
    data = Data(torch.zeros(12, 1, 64), torch.arange(12) % 2, num_classes=2)
    narrow = InvariancePosterior(model, data, result).check().named("bound")[0]
    assert narrow.advice == "Give it a prior that reaches up to ±0.2 s."


def test_a_prior_that_cuts_the_posterior_off_where_most_of_it_lies_below():
    """The upper half of a normal posterior is missing, though 15 % of the draws lie near the end."""
    below = 0.25 - 0.1 * torch.linspace(0.001, 0.999, 400, dtype=torch.float64).mul(0.5).add(0.5).logit().div(1.7)
    (verdict,) = signal_posterior(TimeShift(100.0, 0.25), below.clamp_min(0.0)).check().named("bound")
    assert verdict.level == "note" and "cuts the posterior of time_shift off" in verdict.message
    assert verdict.advice == "Raise largest= of TimeShift and fit again."
    tail = signal_posterior(TimeShift(100.0, 0.25), torch.cat([grid(0.05, 0.15, 390), grid(0.2, 0.25, 10)]))
    assert levels(tail, "bound") == []
    flat = signal_posterior(TimeShift(100.0, 0.25), grid(0.0, 0.25))  # which the verdict on the prior is about
    assert levels(flat, "bound") == []
    whole = draws_of(grid(1.5, math.pi), grid(0.05, 0.1), grid(0.01, 0.02))  # nothing lies beyond the full circle
    assert levels(make_posterior(extents=whole), "bound") == []


def test_draws_without_an_evidence_say_where_the_precision_is_set():
    heavy = torch.zeros(400, dtype=torch.float64)
    heavy[0] = -math.inf
    posterior = make_posterior(weighted=True, log_weights=heavy.log_softmax(0))
    (note,) = posterior.check().named("draws")
    assert "at 1 draw, which has no weight" in note.message
    assert 'InvarianceModel(..., precision="double")' in note.advice
    posterior.model.precision = "double"
    assert "precision" not in posterior.check().named("draws")[0].advice


def test_an_extent_at_the_end_of_a_group_is_all_there_is():
    at_end = signal_posterior(SignFlip(), grid(0.49, 0.5)).check().named("bound")[0]
    assert "all that this symmetry can do" in at_end.message


def test_an_extent_at_the_end_of_its_prior_was_not_placed_by_the_data():
    """One verdict must not say that the data placed what another says the prior stopped."""
    at_end = draws_of(grid(3.05, 3.14), grid(0.05, 0.1), grid(0.01, 0.02))
    (verdict,) = make_posterior(extents=at_end).check().named("prior")
    assert verdict.level == "note" and "upper end of rotation is that of the prior" in verdict.message
    assert verdict.message.startswith("The data place the other extents")
    (alone,) = signal_posterior(TimeShift(), grid(0.97, 1.0)).check().named("prior")
    assert alone.message.startswith("The upper end of time_shift")


def test_a_posterior_that_repeats_its_prior():
    high = {c.name: c.largest for c in Affine2d(NAMES).coordinates}
    repeated = draws_of(grid(0.8, 1.0), grid(0.0, high["translate_x"]), grid(0.01, 0.02))
    found = make_posterior(extents=repeated).check().named("prior")
    assert [v.level for v in found] == ["note"]
    assert "translate_x" in found[0].message and "rotation" not in found[0].message
    assert levels(make_posterior(), "prior") == ["ok"]


def test_a_small_orbit():
    small = KnownModel(GaussianProcess(num_features=64), Affine2d(NAMES), num_orbit_samples=11)
    enough = KnownModel(GaussianProcess(num_features=64), Affine2d(NAMES), num_orbit_samples=12)
    data, result = make_data(), make_result()
    assert levels(InvariancePosterior(small, data, result), "orbit") == ["note"]
    assert levels(InvariancePosterior(enough, data, result), "orbit") == []


def test_class_balance():
    def with_labels(y):
        model = KnownModel(GaussianProcess(num_features=64), Affine2d(NAMES))
        labels = torch.tensor(y)
        return InvariancePosterior(model, Data(torch.rand(len(y), 1, 8, 8), labels, num_classes=2), make_result())

    assert levels(with_labels([0] * 10 + [1] * 10), "classes") == ["ok"]
    rare = with_labels([0] * 20 + [1] * 4).check().named("classes")[0]
    assert rare.level == "note" and "Class 1 has fewer than 5" in rare.message
    assert "one class" in with_labels([0] * 96 + [1] * 4).check().named("classes")[0].message
    assert levels(make_posterior("gaussian"), "classes") == []


def make_maps(share: float, num_maps: int = 8) -> InvariancePosterior:
    """A network of maps of three classes, of which the first has that share of the cells and the last one cell."""
    x = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8).repeat(num_maps, 1, 1, 1)
    y = (x[:, 0] > share).long()
    y[0, 7, 7] = 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = InvarianceModel(nn.Conv2d(1, 3, 3, padding=1), "rotation", num_orbit_samples=2, evidence="plugin")
    model.initialise(Data(x, y, 3))
    return InvariancePosterior(model, Data(x, y, 3), make_result(extents=draws_of(grid(0.1, 0.4))))


def test_classes_of_maps_are_counted_by_maps():
    (verdict,) = make_maps(0.5).check().named("classes")
    assert verdict.level == "note" and "Class 2 has fewer than 5 training examples; the fewest is 1." in str(verdict)
    (verdict,) = make_maps(0.95).check().named("classes")
    assert verdict.message == "94% of the training cells are of one class."


def test_predictions_of_maps_are_judged_map_by_map():
    posterior = make_maps(0.5)
    probs = posterior.predict(posterior.data.x).probs
    (verdict,) = posterior.check(test=posterior.data).named("predictive")
    right = float((probs.argmax(-1) == posterior.data.y).double().mean())
    assert f"accuracy {right:.3f} on 8 examples" in verdict.message
    # Eight maps that are alike have no error of their own, so that any gap counts; a single map cannot tell.
    assert verdict.level == "note"
    assert levels(posterior, "predictive", test=Data(posterior.data.x[:1], posterior.data.y[:1], 3)) == ["ok"]


def test_guides_that_agree_and_that_do_not():
    one, same = make_posterior(), make_posterior(inference="nuts", guide=None)
    assert levels(one, "guides", other=same) == ["ok"]
    moved = make_posterior(extents=one.result.extents + torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64))
    found = one.check(other={"flow": moved}).named("guides")
    assert len(found) == 1 and "rotation" in found[0].message and "by flow" in found[0].message
    narrow = one.result.extents.clone()
    narrow[..., 0] = 0.9 + 0.3 * (narrow[..., 0] - 0.9)
    assert levels(one, "guides", other=make_posterior(extents=narrow)) == ["serious"]


def test_test_data_in_the_place_of_another_fit():
    data = make_data()
    for given in ((data.x, data.y), data, {"nuts": "a name"}):
        with pytest.raises(TypeError, match=r"other: expected another fit.*check\(test=\(x, y\)\)"):
            make_posterior().check(given)


def test_guides_of_other_symmetries_are_refused():
    model = KnownModel(GaussianProcess(num_features=64), Affine2d(["rotation"]))
    other = InvariancePosterior(model, make_data(), make_result(extents=draws_of(grid(0.8, 1.0))))
    with pytest.raises(ValueError, match="other: expected a fit of the same symmetries"):
        make_posterior().check(other=other)


def test_a_point_estimate_is_judged_on_its_data_alone():
    point = make_posterior(draws=1, inference="augerino", guide=None, extents=draws_of([3.1], [0.1], [0.1]), trace=())
    assert {v.name for v in point.check()} == {"convergence", "classes"}
