"""Seeds, quantiles, weights of draws, densities that are fitted to draws, and threads: no data and no model."""
