"""Estimators for scikit-learn: learned invariances in a ``Pipeline``, ``cross_val_score`` or ``GridSearchCV``.

    p(y* | x*, D) = E_{η | D} p(y* | f_η(x*), D),    f_η(x) = E_{t | η} h(T_t x)

``fit`` is `bayesinv.fit` on a table of numbers, or on images in its rows; what it found is ``posterior_``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, no_type_check

import numpy as np
import torch
from gpytorch.kernels import Kernel
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from bayesinv.backbones import GaussianProcess, NeuralNetwork
from bayesinv.data.container import Data
from bayesinv.errors import DataError
from bayesinv.evidence import Evidence
from bayesinv.evidence.prediction import Prediction
from bayesinv.extents.families import PriorSpec
from bayesinv.inference import VI, PointMethod, Training
from bayesinv.inference.fit import fit
from bayesinv.model.invariance_model import InvarianceModel
from bayesinv.transforms import ColumnShift, GaussianNoise, Transform

__all__ = ["InvarianceClassifier", "InvarianceRegressor"]

FLOATS = (np.float64, np.float32)
F = TypeVar("F", bound=Callable[..., Any])
# scikit-learn's contract: a constructor takes anything, and fit refuses. Under another name mypy reads the types still.
unchecked: Callable[[F], F] = no_type_check


class _InvarianceEstimator(BaseEstimator):
    """What the two have in common: parameters, the shape of the inputs, and the fit."""

    _likelihood: ClassVar[str]

    @unchecked
    def __init__(
        self,
        transforms: Transform | str | Sequence[Transform | str] | None = None,
        *,
        image_shape: Sequence[int] | None = None,
        backbone: GaussianProcess | Kernel | NeuralNetwork | nn.Module | None = None,
        num_features: int | None = None,
        evidence: str | Evidence = "auto",
        priors: Mapping[str, PriorSpec] | None = None,
        num_orbit_samples: int = 24,
        inference: str | VI | PointMethod = "vi",
        max_steps: int | None = None,
        num_draws: int | None = None,
        training: Training | None = None,
        num_samples: int = 16,
        standardise: bool = True,
        device: str = "auto",
        random_state: Any = 0,
    ) -> None:
        self.transforms = transforms
        self.image_shape = image_shape
        self.backbone = backbone
        self.num_features = num_features
        self.evidence = evidence
        self.priors = priors
        self.num_orbit_samples = num_orbit_samples
        self.inference = inference
        self.max_steps = max_steps
        self.num_draws = num_draws
        self.training = training
        self.num_samples = num_samples
        self.standardise = standardise
        self.device = device
        self.random_state = random_state

    def _fit(self, X: np.ndarray, y: Tensor, num_classes: int | None = None) -> None:
        """Standardise, build the model and fit it to validated arrays."""
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.scales_ = _moments(X) if self._is_table(X) and self.standardise else None
        inputs = self._inputs(X)
        self.posterior_ = fit(
            self._model(inputs),
            Data(inputs, y, num_classes),
            self.inference,
            seed=self._seed,
            device=self.device,
            max_steps=self.max_steps,
            num_draws=self.num_draws,
            training=self.training,
        )

    def _predict(self, X: Any) -> Prediction:
        """The prediction at inputs that are checked against those of the fit."""
        check_is_fitted(self, "posterior_")
        X = validate_data(self, X, reset=False, dtype=FLOATS, allow_nd=True)
        return self.posterior_.predict(self._inputs(X), num_samples=self.num_samples, seed=self._seed)

    def _is_table(self, X: np.ndarray) -> bool:
        return X.ndim == 2 and self.image_shape is None

    def _inputs(self, X: np.ndarray) -> Float[Tensor, n * event]:
        """Rows in standard deviations, or in the shape of images.

        Raises:
            DataError: rows that do not hold so many pixels, or inputs that have a shape already.
        """
        if self.image_shape is None:
            if self._is_table(X) and self.scales_ is not None:
                X = (X - self.scales_[0]) / self.scales_[1]
            return torch.as_tensor(X)
        shape = tuple(self.image_shape)
        if len(shape) not in (2, 3):
            raise DataError(f"image_shape: expected (height, width) or (channels, height, width), got {shape}")
        if X.ndim != 2 or X.shape[1] != math.prod(shape):
            raise DataError(
                f"X has shape {X.shape}; expected (n, {math.prod(shape)}), as image_shape={shape} says. Flatten the "
                "images with X.reshape(len(X), -1), or leave image_shape out for X of shape (n, channels, height, "
                "width)"
            )
        return torch.as_tensor(X).reshape(len(X), *(1,) * (3 - len(shape)), *shape)

    def _model(self, inputs: Tensor) -> InvarianceModel:
        """The model that the parameters describe, for such inputs."""
        backbone: Any = self.backbone
        if backbone is None:
            backbone = GaussianProcess(num_features=self.num_features)
        elif self.num_features is not None:
            raise ValueError(
                "num_features and backbone: expected one of them, got both; write "
                f"backbone=bayesinv.GaussianProcess(kernel, num_features={self.num_features})"
            )
        transforms, priors, copies = self.transforms, self.priors, self.num_orbit_samples
        if transforms is None:
            transforms = self._default_transforms(inputs)
        elif isinstance(transforms, list | tuple) and not transforms:  # none: an orbit of the input alone
            transforms, priors, copies = GaussianNoise(), {**(priors or {}), "noise": None}, 1
        return InvarianceModel(
            backbone,
            transforms,
            likelihood=self._likelihood,
            evidence=self.evidence,
            priors=priors,
            num_orbit_samples=copies,
        )

    def _default_transforms(self, inputs: Tensor) -> Transform | str:
        """Six affine extents of images, and a shift of every column of a table."""
        if inputs.ndim == 4:
            return "affine2d"
        if inputs.ndim == 2:
            names = [str(name) for name in getattr(self, "feature_names_in_", range(inputs.shape[1]))]
            return ColumnShift(names, table=names)
        raise DataError(
            f"X has shape {tuple(inputs.shape)}, which is neither a table nor images; expected transforms=, such as "
            "[bayesinv.transforms.TimeShift(sampling_rate=100.0)] for signals"
        )


class InvarianceClassifier(ClassifierMixin, _InvarianceEstimator):
    """A classifier that learns which symmetries its classes have, and how far each reaches.

        P(y* = c | x*, D) = E_{η | D} E_{f | η, D} softmax_c f_η(x*)

    Args:
        transforms: a transform, a name, or a list of them, as `bayesinv.InvarianceModel` takes. None is
            ``"affine2d"`` for images and a shift of every column (`bayesinv.transforms.ColumnShift`) for a table; [] is
            no symmetry, the backbone alone.
        image_shape: (height, width) or (channels, height, width) of images that are the rows of X, for example (8, 8).
            None for a table, and for X of shape (n, channels, height, width).
        backbone: what `bayesinv.InvarianceModel` takes, such as a module; None is a `bayesinv.GaussianProcess`.
        num_features: random features of the default backbone, an even number; None is 1,024.
        evidence, priors, num_orbit_samples: of `bayesinv.InvarianceModel`.
        inference, max_steps, num_draws, training: of `bayesinv.fit`; a `VI` or a `NUTS` holds the second and third.
        num_samples: posterior draws that a prediction averages over.
        standardise: whether the columns of a table are brought to mean 0 and standard deviation 1, which is the unit
            that extents are then in. Images are used as they come.
        device: "auto", "cpu", "cuda", ...
        random_state: an integer, a ``numpy.random.RandomState``, or None for another seed at every fit.

    Attributes:
        posterior_: the `bayesinv.InvariancePosterior`; ``summary()``, ``check()`` and ``plot_extents()`` start here.
        scales_: means and standard deviations of a table's columns, or None; with them
            ``posterior_.augmentation(scales=scales_)`` takes rows as they come.
        classes_: the labels, sorted, in the order of ``predict_proba``.
        n_features_in_, feature_names_in_: of X.

    Raises:
        DataError: X of a shape that the parameters do not allow for, or a single class. ValueError: what scikit-learn
            refuses, or parameters that exclude each other.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> small = InvarianceClassifier(num_features=64, num_orbit_samples=4, evidence="dirichlet")
        >>> small.fit(X[::3], y[::3]).score(X, y) > 0.9
        True
        >>> small.posterior_.symmetries
        ('shift_0', 'shift_1', 'shift_2', 'shift_3')
    """

    _likelihood = "categorical"

    def fit(self, X: Any, y: Any) -> InvarianceClassifier:
        """Fit the posterior over the extents.

        Args:
            X: (n, columns), an array or a DataFrame of numbers; or (n, *event), as `bayesinv.fit` takes.
            y: (n,) labels: integers, text, booleans, anything that sorts.

        Raises:
            DataError, ValueError: see the class.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS, allow_nd=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y holds one class, {self.classes_[0]!r}; expected at least 2 classes")
        self._fit(X, torch.as_tensor(labels.astype(np.int64)), len(self.classes_))
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n classes"]:
        """Probabilities of the classes, (n, classes), in the order of ``classes_``."""
        probs = self._predict(X).probs
        return probs.double().numpy()  # type: ignore[union-attr]  # a classification has them

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each input, (n,)."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]


class InvarianceRegressor(RegressorMixin, _InvarianceEstimator):
    """A regression that learns which symmetries its targets have, and how far each reaches.

        p(y* | x*, D) = E_{η | D} N(y* | m_η(x*), v_η(x*) + σ²)

    Args:
        transforms: as all parameters those of `InvarianceClassifier`. Targets are used as they come; several outputs
            share the extents.

    Attributes:
        posterior_: the `bayesinv.InvariancePosterior`.
        scales_: as of `InvarianceClassifier`.
        n_features_in_, feature_names_in_: of X.

    Raises:
        DataError: X of a shape that the parameters do not allow for. ValueError: what scikit-learn refuses, or
            parameters that exclude each other.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = rng.uniform(-2, 2, (40, 2))
        >>> y = np.sin(2 * X[:, 0]) + 0.3 * rng.normal(size=40)
        >>> small = InvarianceRegressor(num_features=32, num_orbit_samples=8, num_draws=80)
        >>> mean, deviation = small.fit(X, y).predict(X, return_std=True)
        >>> small.posterior_.summary()["median"].idxmax()  # the column that the targets do not depend on
        'shift_1'
    """

    _likelihood = "gaussian"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> InvarianceRegressor:
        """Fit the posterior over the extents.

        Args:
            X: (n, columns), an array or a DataFrame of numbers; or (n, *event), as `bayesinv.fit` takes.
            y: real targets, (n,) or (n, outputs).

        Raises:
            DataError, ValueError: see the class.
        """
        options = {"multi_output": True, "y_numeric": True, "ensure_min_samples": 2}
        X, y = validate_data(self, X, y, dtype=FLOATS, allow_nd=True, **options)
        self._fit(X, torch.as_tensor(y.astype(np.float64)))
        return self

    def predict(
        self, X: Any, return_std: bool = False
    ) -> Float[np.ndarray, "*targets"] | tuple[Float[np.ndarray, "*targets"], Float[np.ndarray, "*targets"]]:
        """The mean of the targets, (n,) or (n, outputs) as y was; with ``return_std`` also their standard deviation.

        The deviation is that of a new target: extents, function and noise together.
        """
        prediction = self._predict(X)
        mean = prediction.mean.double().numpy()  # type: ignore[union-attr]  # a regression has one
        deviation = prediction.variance.sqrt().double().numpy()
        return (mean, deviation) if return_std else mean


def _moments(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the columns; 1 for columns that do not vary beyond rounding."""
    mean, deviation = X.mean(0), X.std(0)
    still = deviation <= 10 * np.finfo(X.dtype).eps * np.abs(mean)
    return mean, np.where(still, 1.0, deviation).astype(X.dtype)
