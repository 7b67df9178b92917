"""h_θ: any ``torch.nn.Module`` with a Gaussian prior over its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesinv.backbones.memory import counted, in_parts, unchanged
from bayesinv.backbones.own_copy import own_copy
from bayesinv.backbones.replaced_weights import called_with
from bayesinv.data.arrays import widened
from bayesinv.errors import DataError, first_line
from bayesinv.numerics.arguments import as_number
from bayesinv.numerics.randomness import seeded
from bayesinv.numerics.torch_modes import ordinary

PRIORS = ("layer", "tensor", "isotropic")

# The prior standard deviations start at this many times 1/sqrt(fan-in). At one, a tanh network of five layers
# starts so close to linear and small that weights and scales shrink together to a constant function; from two on LeNet
# on MNIST still did so with one scale per layer, at four it never did.
START_GAIN = 4.0

_BATCH_STATISTICS = (nn.modules.batchnorm._BatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
START_RATIO = 10.0


class NeuralNetwork(nn.Module):
    """A network as the free function h_θ, with θ_l ~ N(0, g_l² / fan-in_l) and one learned gain g_l per layer.

    The gains are hyperparameters of the Laplace evidence; the plug-in likelihood leaves them alone. One isotropic
    precision for all weights makes learned extents too small and their intervals too narrow; scaling by fan-in
    does not.

    Args:
        net: maps (n, *event) to (n, outputs), or for maps of outputs to (n, channels, *cells); copied, so that
            training does not reach the caller's network, and unwrapped (see :func:`own_copy`). Its weights are where
            training starts; those in half precision become float32.
        prior: "layer" (one gain for the weights and biases of a module), "tensor" (one for each), or "isotropic"
            (one standard deviation for everything, without fan-in).
        start_gain: the gains before any learning.

    Raises:
        TypeError: not a module, a ScriptModule, or one that cannot be copied.
        ValueError: nothing to train, weights without numbers, or an unknown prior.

    Reference:
        A. Immer, T. van der Ouderaa, G. Rätsch, V. Fortuin, M. van der Wilk (2022). Invariance learning in deep
        neural networks with differentiable Laplace approximations. arXiv:2202.10638.

    Example:
        >>> network = NeuralNetwork(nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)))
        >>> sorted(network.weights())
        ['1.bias', '1.weight', '3.bias', '3.weight']
        >>> [round(float(s.detach()), 3) for s in network.prior_scales().values()]
        [2.0, 2.0, 1.414, 1.414]
    """

    @ordinary()
    def __init__(self, net: nn.Module, prior: str = "layer", start_gain: float = START_GAIN):
        super().__init__()
        if not isinstance(net, nn.Module):
            raise TypeError(f"net: expected a torch.nn.Module, got {type(net).__name__}")
        if prior not in PRIORS:
            raise ValueError(f"prior: expected one of {list(PRIORS)}, got {prior!r}")
        start_gain = as_number("start_gain", start_gain)
        self.net = own_copy(net)
        self.prior = prior
        self.mixed_precision = False
        self._bytes: dict[Any, int] = {}
        named = self.weights()
        if not named:
            raise ValueError("net: expected at least one parameter that requires a gradient, got none")
        self._group, num_groups = self._groups()
        self._base = {name: self._fan_in(name) ** -0.5 if prior != "isotropic" else 1.0 for name in named}
        start = math.log(start_gain) if prior != "isotropic" else 0.0
        self.log_scales = nn.Parameter(torch.full((num_groups,), start))
        self.output_mean: Tensor
        self.output_unit: Tensor
        self.register_buffer("output_mean", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("output_unit", torch.ones((), dtype=torch.float64))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; inputs are brought to it, since NumPy's floats are double and a network's weights are not."""
        return next(p.dtype for p in self.net.parameters() if p.is_floating_point())

    def weights(self) -> dict[str, nn.Parameter]:
        """θ: the parameters of ``net`` that require a gradient, by name."""
        return {name: p for name, p in self.net.named_parameters() if p.requires_grad}

    def prior_scales(self) -> dict[str, Float[Tensor, ""]]:
        """Prior standard deviation of each weight tensor, differentiable in the gains."""
        gains = self.log_scales.exp()
        return {name: gains[group] * self._base[name] for name, group in self._group.items()}

    def fan_in_scales(self) -> dict[str, float]:
        """1/√fan-in of each weight tensor, which its gain multiplies; 1 with an isotropic prior."""
        return dict(self._base)

    @torch.no_grad()
    def start_scales(self) -> None:
        """Set each gain to where the prior allows for the weights as they are, ten times their root mean square.

        At the evidence's optimum σ_l² = |θ_l|² / γ_l, with γ_l the number of directions of layer l that the data
        determine (MacKay, 1992): about one in a hundred, in the networks that this was tried on.
        """
        weights = self.weights()
        for group in range(len(self.log_scales)):
            names = [name for name, k in self._group.items() if k == group]
            squares = torch.stack([(weights[name] / self._base[name]).square().sum() for name in names]).sum()
            count = sum(weights[name].numel() for name in names)
            self.log_scales[group] = math.log(START_RATIO) + 0.5 * torch.log(squares / count + 1e-12)

    def log_prior(self, weights: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """log p(θ) without its normalising constant, -½ Σ_l |θ_l|² / σ_l²: the Laplace evidence's share of it.

        The constant's -P log σ joins the curvature in ½ log det(I + σ² Jᵀ Λ J).
        """
        scales = self.prior_scales()
        return -0.5 * torch.stack([(weights[name] / scales[name]).square().sum() for name in scales]).sum()

    def forward(self, x: Float[Tensor, n * event]) -> Float[Tensor, n * outputs]:
        """h_θ(x) at the current weights, in the unit of the targets."""
        return self.in_unit(self.functional({}, x))

    def functional(self, weights: Mapping[str, Tensor], x: Float[Tensor, n * event]) -> Float[Tensor, n * outputs]:
        """What the network itself returns, with some weights replaced, (n, outputs) or (n, channels, *cells).

        Raises:
            DataError: the network does not return one row of real floating-point outputs per input.
        """
        x = x.to(self.dtype, copy=True)  # networks may work in place, on what may be the caller's array
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed_precision):
            out = called_with(self.net, weights, x) if weights else self.net(x)
        if not isinstance(out, Tensor) or out.ndim not in (1, 2, 3, 4, 5) or len(out) != len(x):
            is_tensor = isinstance(out, Tensor)
            came = f"shape {tuple(out.shape)}" if is_tensor else type(out).__name__
            cure = "flatten or pool what is left of the event axes inside it" if is_tensor else "return one tensor"
            raise DataError(
                f"the network has to return (n, outputs) for inputs (n, *event), here n = {len(x)}, but {came} came; "
                f"{cure}"
            )
        if not out.is_floating_point():
            raise DataError(
                f"the network has to return real floating-point outputs, and {out.dtype} came; return logits or "
                "predicted values as they are, without rounding, argmax or a change of type"
            )
        out = out[:, None] if out.ndim == 1 else out
        return widened(out)

    def functional_in_parts(
        self, weights: Mapping[str, Tensor], points: Float[Tensor, N * event], memory_budget: int
    ) -> Float[Tensor, N * outputs]:
        """The same with what autograd keeps of it within a number of bytes; all at once where examples mix."""
        size = len(points) if self.mixes_examples else self.points_within(memory_budget, points)
        own = dict(weights)
        return in_parts(lambda part: self.functional(own, part), points, size)

    def points_within(self, memory_budget: int, points: Float[Tensor, N * event]) -> int:
        """How many points' activations fit into a number of bytes, at least one."""
        return max(1, memory_budget // max(1, self.bytes_per_point(points)))

    def bytes_per_point(self, points: Float[Tensor, N * event]) -> int:
        """What autograd keeps of one point; measured on the first, once for each shape."""
        key = (tuple(points.shape[1:]), self.mixed_precision)
        if key not in self._bytes:
            x = points[:1].detach().to(self.dtype)
            with unchanged(self.net), seeded(0), torch.enable_grad(), counted() as saved:
                # The points too are kept, and two of them, for layers that normalise over a batch.
                self.functional({}, x.repeat_interleave(2, 0).requires_grad_())
            saved.forget(*self.net.parameters(), *self.net.buffers())
            self._bytes[key] = x.numel() * x.element_size() + saved.num_bytes // 2
        return self._bytes[key]

    @property
    def mixes_examples(self) -> bool:
        """Whether a layer takes statistics over the examples of a batch, which then has to stay whole."""
        return any(isinstance(m, _BATCH_STATISTICS) and not self._is_frozen(m) for m in self.net.modules())

    def evaluated(self) -> NeuralNetwork:
        """The same network in evaluation mode, for an evidence: all tensors are shared, and layers neither draw nor
        update statistics.

        A network of its own and not a mode for a while, since parts of it run again when gradients are asked for.
        """
        shared = [*self.parameters(), *self.buffers(), self._bytes]
        return copy.deepcopy(self, {id(value): value for value in shared}).eval()

    def check_layers(self, evidence: str) -> None:
        """Refuse layers and weights under which the evidence has no meaning, also in evaluation mode.

        Raises:
            ValueError: naming them, and what to use instead.
        """
        for name, weight in self.weights().items():
            if weight.is_complex():
                raise ValueError(
                    f"the weight {name!r} is complex, and the {evidence} evidence takes the curvature in real "
                    "ones; keep its real and imaginary parts as two parameters, put together with torch.complex in "
                    'forward, or fit with evidence="plugin"'
                )
        for name, module in self.net.named_modules():
            where = f"layer {name or '(the network itself)'!r} ({type(module).__name__})"
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.track_running_stats:
                raise ValueError(
                    f"{where} keeps no running statistics, so that one example's output always depends on the others "
                    f"in its batch, and the {evidence} evidence does not split over examples; use "
                    'track_running_stats=True, GroupNorm or LayerNorm, or fit with evidence="plugin"'
                )
            if isinstance(module, nn.Hardsigmoid):
                raise ValueError(
                    f"{where} has no second derivative in PyTorch, which the gradient of the {evidence} evidence "
                    'takes; use Sigmoid, fit with evidence="plugin", or fit a Gaussian process on the network\'s '
                    "frozen features: GaussianProcess(features=net)"
                )

    @staticmethod
    def _is_frozen(module: nn.Module) -> bool:
        return getattr(module, "track_running_stats", False) and not module.training

    def prepare(self, num_outputs: int) -> None:
        """Nothing to size: the network comes with its outputs."""

    @torch.no_grad()
    def match(self, x: Float[Tensor, n * event], y: Float[Tensor, "n C"], centred: bool = True) -> None:
        """Read outputs as standardised targets, h(x) = m + s net(x), unless the network predicts y as it is.

        Steps of an optimiser and priors over weights are made for outputs of about one; s is one number, since the
        targets share one noise. A network whose errors leave less than half of the variance of y was trained on them.

        Args:
            x: inputs.
            y: their real targets.
            centred: whether m is the mean of y; else zero, as for outputs that turn with the input.
        """
        y = y.double()
        variance = y.var(0, correction=0).mean()
        outputs = copy.deepcopy(self).eval().functional({}, x).double()
        self.output_mean, self.output_unit = y.new_zeros(0), y.new_ones(())
        if (outputs - y).square().mean() < 0.5 * variance:
            return
        self.output_mean = y.mean(0) if centred else torch.zeros_like(y[0])
        size = variance if centred else y.square().mean()
        self.output_unit = size.sqrt() if size > 0 else self.output_unit

    def in_unit(self, outputs: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
        """m + s net(x), in float64 for an offset that is large beside s; outputs as they are without targets."""
        return self.output_mean + self.output_unit * outputs.double() if len(self.output_mean) else outputs

    def parameter_units(self) -> dict[str, float]:
        """None: inputs come as they are, and outputs are standardised targets."""
        return {}

    def initialise(self, x: Float[Tensor, n * event], output_variance: float, seed: int) -> int:
        """Run a few inputs through the network; returns how many outputs it has, for each cell of a map of them.

        Raises:
            DataError: the network cannot take these inputs.
        """
        with unchanged(self.net), torch.no_grad(), seeded(seed):
            try:
                out = self.functional({}, x[:2])
            except DataError:
                raise
            except Exception as error:
                raise DataError(
                    f"the network failed on inputs of shape {tuple(x[:2].shape)}: {first_line(error)}"
                ) from error
        return out.shape[1]

    @torch.no_grad()
    def sample_weights(self, seed: int) -> None:
        """Replace the weights by a draw from their prior, for simulated data with a known answer."""
        with seeded(seed):
            scales = self.prior_scales()
            for name, weight in self.weights().items():
                weight.copy_(torch.randn(weight.shape, dtype=weight.dtype).to(weight.device) * scales[name])

    def prepare_state(self, state: Mapping[str, Tensor]) -> None:
        """Make room for the means of the targets; the network comes with its shapes."""
        self.output_mean = torch.zeros_like(state.get("output_mean", self.output_mean), device=self.output_mean.device)

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """Zero: the gains have no prior."""
        return torch.zeros((), dtype=torch.float64)

    def config(self) -> dict[str, Any]:
        """A JSON-able description; the network itself is code, and is named by its text."""
        return {"type": "NeuralNetwork", "net": repr(self.net), "prior": self.prior}

    def _groups(self) -> tuple[dict[str, int], int]:
        """The gain of each weight tensor."""
        names = list(self.weights())
        if self.prior == "isotropic":
            keys = dict.fromkeys(names, "all")
        elif self.prior == "layer":
            keys = {name: name.rpartition(".")[0] for name in names}
        else:
            keys = {name: name for name in names}
        order = {key: k for k, key in enumerate(dict.fromkeys(keys.values()))}
        return {name: order[keys[name]] for name in names}, len(order)

    def _fan_in(self, name: str) -> float:
        """Numbers that one output of the layer sums over; a bias or a gain takes that of its layer's weight.

        An attention's ``in_proj_bias`` belongs to ``in_proj_weight``, a recurrent ``bias_ih_l0`` to ``weight_ih_l0``.
        """
        layer, _, own = name.rpartition(".")
        module = self.net.get_submodule(layer)
        partners = list(dict(module.named_parameters(recurse=False))) if "bias" in own else []
        for candidate in ("weight", own.replace("bias", "weight"), own, *partners):
            weight = getattr(module, candidate, None)
            if isinstance(weight, Tensor) and weight.ndim > 1:
                return _fan_in(module, weight)
        return 1.0


def _fan_in(module: nn.Module, weight: Tensor) -> float:
    if not isinstance(module, nn.modules.conv._ConvTransposeNd):
        return float(max(1, weight[0].numel()))
    # (in, out / groups, *kernel): an output meets one in `stride` of the kernel's places along each axis.
    places = [max(1.0, k / s) for k, s in zip(module.kernel_size, module.stride, strict=True)]
    return math.prod(places) * module.in_channels / module.groups
