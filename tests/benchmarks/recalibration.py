"""Coverage and width of intervals before and after ``posterior.recalibrate()``, on 8×8 digits.

    python tests/benchmarks/recalibration.py --case dirichlet --simulations 100 --fresh 200 --out runs/

One data set of each case is drawn from its model and fitted, and its posterior recalibrated by N simulated fits. Fresh
simulations, from other seeds, are fitted as well: each has a raw interval and a recalibrated one, and the table says
how many hold their truth and how wide they are. True extents of fresh simulations come from the mixture that
recalibration draws from, which conformal prediction covers, and from the prior alone, which it does not quite. Finished
simulations are kept under --out and are not repeated; --small runs every line in a few minutes, with numbers that mean
nothing.
"""

import argparse
import contextlib
import dataclasses
import io
import math
from pathlib import Path

from calibration import FULL, SYMMETRIES, gp_case, inputs, network_case, prepare_dirichlet, prepare_gaussian
from calibration import SMALL as SMALLEST
from common import print_table, provenance

SMALL = dataclasses.replace(SMALLEST, num_draws=30)
LEVEL = 0.9


def dirichlet(size):
    """Dirichlet targets, as many inducing inputs as examples."""
    model, case = gp_case(size, "dirichlet", "learned", prepare_dirichlet)
    return model, prepare_dirichlet, case["num_outputs"], case["fit_options"]


def inducing(size):
    """Real targets, a third as many inducing inputs as examples."""
    import bayesinv

    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=size.num_train // 3),
        SYMMETRIES,
        likelihood="gaussian",
        num_orbit_samples=size.copies,
    )
    options = {"max_steps": size.max_steps, "num_draws": size.num_draws}
    return model, prepare_gaussian, 3, options


def network(size):
    """A small network with the Laplace evidence and one latent extent, as fitted."""
    import bayesinv

    model, _ = network_case(size)
    training = bayesinv.Training(
        epochs=size.epochs,
        batch_size=size.num_train,
        extent_batch_size=size.num_train,
        extent_every=2,
        weight_rate=0.01,
    )
    return model, None, None, {"training": training, "num_draws": size.num_draws}


CASES = {"dirichlet": dirichlet, "inducing": inducing, "network": network}


def data_and_posterior(name, size, seed):
    """A data set with the prior's median extents, and its fit."""
    import copy

    from bayesinv.checks.simulations import fit_with
    from bayesinv.data.container import Data

    model, prepare, num_outputs, options = CASES[name](size)
    x = inputs(size)
    for attempt in range(seed, seed + 20):
        teacher = copy.deepcopy(model)
        if prepare is not None:
            prepare(teacher, x, attempt)
        if teacher.is_network:
            teacher.network.sample_weights(attempt)
        drawn = teacher.simulate(x, teacher.extents.prior_quantile(0.5), num_outputs, attempt)
        classes = drawn.function.shape[1] if model.likelihood == "categorical" else None
        if classes is None or len(drawn.y.unique()) > 1:  # labels that are all alike are no data
            return fit_with(model, Data(x, drawn.y, classes), attempt, options)
    raise RuntimeError(f"{name}: 20 data sets with labels that are all alike")


def ends(at, symmetries, posterior, errors):
    """Interval ends of many fits in people's units, (fits, 2, latent), from their knots in z and quantiles of e."""
    import numpy as np

    from bayesinv.fitted.recalibrated import PriorScale, located

    scale = PriorScale(posterior.model.extents)
    columns = [posterior.symmetries.index(s) for s in symmetries]
    coordinates = [posterior.model.transform.coordinates[k] for k in columns]
    found = []
    for own in at:  # (3, latent)
        z = np.zeros((2, len(posterior.symmetries)))
        z[:, columns] = located(errors, own)
        eta = scale.from_z(z)
        found.append(np.stack([c.to_people(eta[:, k]) for c, k in zip(coordinates, columns, strict=True)], 1))
    return np.stack(found), [c.unit for c in coordinates]


def rows_of(name, posterior, simulated, fresh):
    """A row for each symmetry and origin of the fresh extents."""
    import numpy as np

    from bayesinv.fitted.recalibrated import NORMAL_END, error_quantile

    tail = (1 - LEVEL) / 2
    mended = error_quantile(simulated.errors, np.array([tail, 1 - tail]))  # (2, latent)
    raw = np.tile([[-NORMAL_END], [NORMAL_END]], (1, len(simulated.symmetries)))
    for origin, records in fresh.items():
        good = [r for r in records if r["error"] is None]
        if not good:
            continue
        errors, at = np.array([r["errors"] for r in good]), np.array([r["knots"] for r in good])
        cells = []
        for bounds in (raw, mended):
            held = (bounds[0] - 1e-9 <= errors) & (errors <= bounds[1] + 1e-9)
            adjusted = (held.sum(0) + 2) / (len(good) + 4)
            error = np.sqrt(adjusted * (1 - adjusted) / (len(good) + 4))
            interval, units = ends(at, simulated.symmetries, posterior, bounds)
            cells.append((held.mean(0), error, (interval[:, 1] - interval[:, 0]).mean(0)))
        for k, symmetry in enumerate(simulated.symmetries):
            shown = [f"{100 * cover[k]:.0f} ± {100 * error[k]:.0f} %" for cover, error, _ in cells]
            widths = [f"{width[k]:.3g} {units[k]}" for _, _, width in cells]
            yield [name, symmetry, origin, len(good), shown[0], widths[0], shown[1], widths[1]]


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--simulations", type=int, help="N of the recalibration; 100")
    parser.add_argument("--fresh", type=int, help="fresh simulations of each origin; 200")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("recalibration-results"))
    options = parser.parse_args(arguments)
    import warnings

    import bayesinv
    from bayesinv.checks.recalibration import job_of
    from bayesinv.checks.simulated_fits import simulated_fits

    size = SMALL if options.small else FULL
    N = options.simulations or (24 if options.small else 100)
    num_fresh = options.fresh or (6 if options.small else 200)
    print(provenance())
    for name in options.case:
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "posterior.npz"
        if file.exists():
            posterior = bayesinv.InvariancePosterior.load(file, model=CASES[name](size)[0])
        else:
            posterior = data_and_posterior(name, size, options.seed)
            posterior.save(file)
        own = CASES[name](size)[3]
        refit = {k: v for k, v in own.items() if k == "training"}  # a loaded file holds the rest
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            mended = posterior.recalibrate(
                N, fit_options=refit, jobs=options.jobs, folder=folder / "simulated", seed=options.seed, force=True
            )
        fresh = {}
        for origin, seed in (("mixture", options.seed + 1), ("prior", options.seed + 2)):
            job, facts = job_of(posterior, None, refit, origin, None, None, seed)
            fresh[origin] = simulated_fits(job, range(num_fresh), options.jobs, folder / f"fresh_{origin}", facts, seed)
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            report(name, posterior, mended.recalibration, fresh, [str(w.message) for w in caught])
        print(text.getvalue(), flush=True)
        (options.out / f"{name}.md").write_text(f"{provenance()}\n{text.getvalue()}", encoding="utf-8")


def report(name, posterior, recalibration, fresh, warned) -> None:
    """The table of one case."""
    seconds = [r["seconds"] for records in fresh.values() for r in records]
    checked = ", ".join(f"{k} p = {p:.2g}" for k, p in recalibration.p_values.items())
    print(
        f"\n{name}: recalibrated by {recalibration.num_simulations} simulations, {recalibration.num_failed} failed; "
        f"{math.fsum(seconds) / len(seconds):.1f} s a fit; predictive check: {checked}\n"
    )
    for text in sorted(set(warned) & set(recalibration.warnings)):
        print(f"Overruled: {text}.\n")
    header = ["case", "symmetry", "true extents", "fresh", "raw 90 %", "its width", "recalibrated 90 %", "its width"]
    print_table(header, rows_of(name, posterior, recalibration, fresh))


if __name__ == "__main__":
    main()
