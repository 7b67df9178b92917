"""log p(D) by importance sampling against bridge sampling, on collapsed Gaussian processes.

    python tests/benchmarks/evidence_agreement.py --seeds 0 1 2 --out runs/

100 of scikit-learn's digits at 8×8, turned within ±45°; rotation and both translations latent; Gaussian evidence on
one-hot targets, and Dirichlet. The two methods share neither draws nor proposal; both hold the learned hyperparameters.
Finished fits are kept under --out.
"""

import argparse
import contextlib
import io
import json
import math
import os
import warnings
from pathlib import Path

from common import print_table, provenance, side_by_side

EVIDENCES = ("gaussian", "dirichlet")
SYMMETRIES = ["rotation", "translate_x", "translate_y"]
IMPORTANCE_DRAWS = 1000


def job(argument):
    """Fit once, estimate twice; a dictionary that JSON can hold."""
    evidence, seed, num_train, max_steps, num_draws = argument
    warnings.simplefilter("ignore")
    import torch

    import bayesinv
    from bayesinv import checks

    torch.set_num_threads(1)
    train = bayesinv.datasets.digits(math.radians(45), size=8, num_train=num_train, seed=seed).train
    gaussian = evidence == "gaussian"
    data = (train.x, torch.nn.functional.one_hot(train.y, 10).double()) if gaussian else train
    model = bayesinv.InvarianceModel(
        bayesinv.GaussianProcess(num_inducing=num_train // 2),
        SYMMETRIES,
        likelihood="gaussian" if gaussian else "categorical",
        evidence=evidence,
        num_orbit_samples=8,
    )
    posterior = bayesinv.fit(model, data, seed=seed, max_steps=max_steps)
    importance = checks.importance_evidence(posterior, num_draws, seed=seed)
    bridge = checks.bridge_evidence(posterior, 2 * num_draws, seed=seed)
    return {
        "evidence": evidence,
        "seed": seed,
        "guide": [posterior.log_evidence, posterior.log_evidence_se, posterior.pareto_k],
        "importance": [importance.log_evidence, importance.se, importance.pareto_k],
        "bridge": [bridge.log_evidence, bridge.se],
        "agree": None if importance.se is None else bool(importance.agrees_with(bridge)),
        "quotable": bool(importance.quotable),
        "converged": bool(posterior.result.converged),
    }


def run(evidences, seeds, num_train, max_steps, num_draws, out, jobs=1):
    """Results of every evidence and seed, those that are there already not computed again."""
    out.mkdir(parents=True, exist_ok=True)
    cases = [(e, s, num_train, max_steps, num_draws) for e in evidences for s in seeds]
    paths = {case: out / ("evidence_" + "_".join(map(str, case)) + ".json") for case in cases}
    missing = [case for case in cases if not paths[case].exists()]
    for start in range(0, len(missing), jobs):
        block = missing[start : start + jobs]
        for case, result in zip(block, side_by_side(job, block, jobs), strict=True):
            part = paths[case].with_suffix(".part")
            part.write_text(json.dumps(result), encoding="utf-8")
            os.replace(part, paths[case])
    return [json.loads(paths[case].read_text(encoding="utf-8")) for case in cases]


def report(results) -> None:
    """The table of docs/calibration.md."""
    rows = []
    for r in results:
        (i, i_se, k), (b, b_se) = r["importance"], r["bridge"]
        errors = math.nan if i_se is None else abs(i - b) / math.hypot(i_se, b_se)
        rows.append(
            [
                r["evidence"],
                r["seed"],
                f"{i:.2f}" + ("" if i_se is None else f" ± {i_se:.2f}"),
                f"{k:.2f}",
                f"{b:.2f} ± {b_se:.2f}",
                f"{errors:.1f}",
                {None: "", True: "yes", False: "no"}[r["agree"]],
                "yes" if r["quotable"] else "no",
                "yes" if r["converged"] else "no",
            ]
        )
    header = ["evidence", "seed", "importance, nats", "k̂", "bridge, nats"]
    print_table([*header, "standard errors apart", "within 3", "s.e. < 0.5", "fit converged"], rows)


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evidences", nargs="+", choices=EVIDENCES, default=list(EVIDENCES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--num-train", type=int, default=100)
    parser.add_argument("--max-steps", type=int, default=1000)
    parser.add_argument("--num-draws", type=int, default=IMPORTANCE_DRAWS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("calibration-results"))
    o = parser.parse_args(arguments)
    results = run(o.evidences, o.seeds, o.num_train, o.max_steps, o.num_draws, o.out / "evidence", o.jobs)
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        print(provenance())
        print(f"\nn = {o.num_train}, {o.num_draws} draws of importance sampling, a chain of {2 * o.num_draws}\n")
        report(results)
    print(text.getvalue())
    (o.out / "evidence.md").write_text(text.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    main()
