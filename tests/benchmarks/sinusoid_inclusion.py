"""Which operations do noisy sinusoids need: inclusion probabilities of a frequency shift, random phases and noise.

    python tests/benchmarks/sinusoid_inclusion.py

The four-class problem of `models/sinusoids.py` with 60 signals (a class every 2 Hz, its frequency within ±0.5 Hz), at
25 samples a second, which still holds every frequency; a Gaussian process on power spectra, Dirichlet evidence. Power
spectra do not see phases, so that a Fourier surrogate can change nothing. Seeds 0-2 draw signals and start the fit.
"""

import argparse
import warnings

from common import print_table, provenance, side_by_side

RATE = 25.0
NUM_BINS = 121  # 0 to 12 Hz over 10 seconds
NUM_TEST = 200


def job(seed):
    """Fit, select, score; the same without any extent."""
    warnings.simplefilter("ignore")
    import bayesinv
    from bayesinv.transforms import FourierSurrogate, FrequencyShift, GaussianNoise
    from models.sinusoids import HALF_WIDTH, PowerSpectrum

    train, test = bayesinv.datasets.sinusoids(60, NUM_TEST, seed, HALF_WIDTH, duration=10.0, sampling_rate=RATE)

    def make(priors=None):
        return bayesinv.InvarianceModel(
            bayesinv.GaussianProcess(num_inducing=60, features=PowerSpectrum(NUM_BINS)),
            [FrequencyShift(RATE, largest=2.0), FourierSurrogate(), GaussianNoise(largest=1.0)],
            num_orbit_samples=8,
            priors=priors,
        )

    def accuracy(posterior):
        return 100 * float((posterior.predict(test.x, num_samples=8).labels == test.y).double().mean())

    posterior = bayesinv.fit(make(), train, seed=seed, max_steps=400, num_draws=100)
    without = bayesinv.fit(make(dict.fromkeys(posterior.symmetries)), train, seed=seed, max_steps=400)
    found = bayesinv.select(posterior, seed=seed)
    table = posterior.summary()
    return {
        "extents": table[["median", "lower", "upper"]].to_numpy().tolist(),
        "units": table["unit"].tolist(),
        "probability": found.inclusion["probability"].tolist(),
        "error": found.inclusion["standard_error"].tolist(),
        "log_bf": found.bayes_factors["log_bf"].tolist(),
        "accuracy": (accuracy(posterior), accuracy(without)),
        "converged": posterior.result.converged,
        "names": list(posterior.symmetries),
        "seconds": posterior.result.seconds + found.seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    results = dict(zip(options.seeds, side_by_side(job, options.seeds, options.jobs), strict=True))
    print(provenance())
    print()
    rows = []
    for seed, r in results.items():
        for k, name in enumerate(r["names"]):
            median, low, high = r["extents"][k]
            first = k == 0
            rows.append(
                [
                    seed if first else "",
                    name,
                    f"{median:.3g} [{low:.3g}, {high:.3g}] {r['units'][k]}",
                    f"{r['probability'][k]:.3f} ± {r['error'][k]:.3f}",
                    f"{r['log_bf'][k]:+.1f}",
                    f"{r['accuracy'][0]:.1f}" if first else "",
                    f"{r['accuracy'][1]:.1f}" if first else "",
                    ("yes" if r["converged"] else "no") if first else "",
                    f"{r['seconds']:.0f}" if first else "",
                ]
            )
    header = ["seed", "operation", "extent", "P(in)", "log BF", "accuracy, %", "without, %", "converged", "seconds"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
