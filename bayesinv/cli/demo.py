"""The demo: scikit-learn's digits upright, turned within ±45°, and over the full circle.

On each set the posterior over six affine extents is fitted, and its test accuracy compared with
the same Gaussian process without invariance and with an augmentation fixed by hand. Nothing is
downloaded or printed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bayesinv.backbones import GaussianProcess
from bayesinv.data.container import Data
from bayesinv.datasets import digits
from bayesinv.inference import Step, fit
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.posterior.invariance_posterior import InvariancePosterior
from bayesinv.transforms import Affine2d

__all__ = ["HAND_FIXED", "METHODS", "SETS", "DemoResult", "DigitSet", "run"]


@dataclass(frozen=True)
class DigitSet:
    """One data set of the demo; `rotation` is the half-width of the angles in radians."""

    name: str
    title: str
    rotation: float | None
    remark: str = ""  # what to know when reading the extents


SETS = (
    DigitSet("upright", "upright digits", None),
    DigitSet(
        "within-45",
        "digits turned within ±45°",
        math.radians(45),
        "Digits turned within ±45° want a rotation of about ±90°: two of the same class may differ by 90°, and an "
        "extent says how much invariance explains the labels, not how the data were made.",
    ),
    DigitSet("full-circle", "digits turned over the full circle", math.pi),
)

# What a practitioner might set for digits without looking: half-widths of 15°, 10 % of the width
# (0.2 of the half-width) and 10 % of the size, and no shear.
HAND_FIXED = {
    "translate_x": 0.2,
    "translate_y": 0.2,
    "rotation": math.radians(15),
    "scale_x": math.log(1.1),
    "scale_y": math.log(1.1),
    "shear": 0.0,
}

# Name of the method, and the extents that it fixes: none, all at zero, all by hand.
METHODS: dict[str, dict[str, float]] = {
    "posterior": {},
    "no invariance": dict.fromkeys(HAND_FIXED, 0.0),
    "hand-fixed augmentation": HAND_FIXED,
}


@dataclass(frozen=True)
class DemoResult:
    """What the demo found on one set.

    Attributes:
        digit_set: which one.
        posterior: over the six extents.
        accuracy: share of test images labelled right, by method.
        log_evidence: nats, by method; for the posterior with the extents integrated out.
        test: the test images.
        seconds: of the three fits.
    """

    digit_set: DigitSet
    posterior: InvariancePosterior
    accuracy: dict[str, float]
    log_evidence: dict[str, float]
    test: Data
    seconds: float


def run(
    seed: int = 0,
    num_train: int = 300,
    max_steps: int = 200,
    num_features: int | None = None,
    num_orbit_samples: int = 24,
    num_draws: int | None = None,
    num_test: int | None = None,
    sets: tuple[DigitSet, ...] = SETS,
    on_step: Callable[[str, str, Step], None] | None = None,
) -> Iterator[DemoResult]:
    """Fit each set by each method, one set at a time.

    Args:
        seed: of data, models and fits.
        num_train: training images.
        max_steps: the most evaluations of the evidence from each start.
        num_features: random features of the kernel; None is the library's default.
        num_orbit_samples: S, copies of each image.
        num_draws: posterior draws, each weighed by one evaluation of the evidence; None as `bayesinv.fit` chooses.
        num_test: test images, None for all that are left of the 1,797.
        sets: which sets.
        on_step: called with the name of the set, of the method, and the `Step`.

    Yields:
        One result a set, as soon as there is one.
    """
    for digit_set in sets:
        train, test = digits(digit_set.rotation, num_train=num_train, seed=seed)
        test = test.subset(slice(0, num_test))
        posteriors: dict[str, InvariancePosterior] = {}
        accuracy: dict[str, float] = {}
        for method, extents in METHODS.items():
            model = InvarianceModel(
                GaussianProcess(num_features=num_features),
                Affine2d(),
                likelihood="categorical",
                priors=extents,
                num_orbit_samples=num_orbit_samples,
            )
            callbacks = [_callback(on_step, digit_set.name, method)] if on_step else []
            posterior = fit(
                model,
                train,
                seed=seed,
                max_steps=max_steps,
                num_draws=num_draws,
                callbacks=callbacks,
            )
            labels = posterior.predict(test.x, num_samples=16, seed=seed).labels.cpu()
            posteriors[method] = posterior
            accuracy[method] = float((labels == test.y).double().mean())
        yield DemoResult(
            digit_set=digit_set,
            posterior=posteriors["posterior"],
            accuracy=accuracy,
            log_evidence={
                method: float(posterior.log_evidence)
                for method, posterior in posteriors.items()
                if posterior.log_evidence is not None
            },
            test=test,
            seconds=sum(posterior.result.seconds for posterior in posteriors.values()),
        )


def _callback(on_step: Callable[[str, str, Step], None], name: str, method: str) -> Callable[[Step], None]:
    return lambda step: on_step(name, method, step)
