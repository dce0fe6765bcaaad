"""What a run of a family leaves behind: log Z at several contexts and the figure of that curve, or a likelihood."""

from pathlib import Path

from diffsampler.curves import LogZCurve, log_z_curve
from diffsampler.families.contexts import spread_contexts
from diffsampler.files import write_json
from diffsampler.report.axes import save_all
from diffsampler.sampler import Sampler
from diffsampler.streams import new_generator

NUM_CONTEXTS = 9


def write_family_report(
    folder: Path,
    sampler: Sampler,
    n: int,
    seed: int,
    contexts: list[list[float]] | None,
    figures: bool,
    step: int,
    reference: bool,
) -> LogZCurve:
    """Print the curve, and write `results.json` and `log_z_curve.png`.

    Arguments:
        folder: where to.
        sampler: of the family.
        n: draws at each context.
        seed: of the run.
        contexts: where; by default far from each other among those trained on.
        figures: whether to draw.
        step: how far it was trained.
        reference: whether each density is searched from nothing, to compare with.
    """
    generator = new_generator("metrics", seed, device=sampler.device)
    if contexts is None:
        chosen = spread_contexts(sampler.family, NUM_CONTEXTS, generator)
        contexts = chosen[chosen[:, 0].argsort()].tolist()
    curve = log_z_curve(sampler, contexts, n, seed, progress_bar=reference, reference=reference)
    results = {
        "target": type(sampler.target).__name__,
        "num_target_evaluations": sampler.num_target_evaluations,
        "num_network_evaluations": sampler.num_network_evaluations,
        "step": step,
        "curve": curve.to_dict(),
    }
    write_json(folder / "results.json", results)
    print(curve)
    print(f"Results: {folder / 'results.json'}")
    if figures:
        print(f"Figures: {', '.join(map(str, save_all(folder, {'log_z_curve': curve.plot})))}")
    return curve


def write_likelihood_report(folder: Path, sampler: Sampler, found: tuple[float, float] | None, step: int) -> None:
    """Print how well fresh simulations are known, where no density is, and write `results.json`.

    Arguments:
        folder: where to.
        sampler: of simulations.
        found: their mean log-likelihood, bounded from below, and its standard error; None without a validation.
        step: how far it was trained.
    """
    mean, error = (None, None) if found is None else found
    results = {
        "target": type(sampler.target).__name__,
        "num_network_evaluations": sampler.num_network_evaluations,
        "step": step,
        "log_likelihood": mean,
        "standard_error": error,
    }
    write_json(folder / "results.json", results)
    if found is not None:
        print(f"  log-likelihood of fresh simulations, at least {mean:.4f} +- {error:.4f}")
    print(f"Results: {folder / 'results.json'}")
