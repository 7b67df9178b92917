"""The data of a fit: what people give becomes one container, whole or batch by batch."""

from bayesinv.data.container import LIKELIHOODS, Data, as_data, as_inputs

__all__ = ["LIKELIHOODS", "Data", "as_data", "as_inputs"]
