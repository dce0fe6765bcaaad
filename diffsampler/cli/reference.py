"""The command line of the plain reference: `diffsampler reference --target ...`."""

import json
from pathlib import Path

from diffsampler.assessment import format_table
from diffsampler.baseline import reference
from diffsampler.counted import CountedTarget
from diffsampler.errors import InputError, check_count
from diffsampler.repeatable import naming_the_target
from diffsampler.target import Target
from diffsampler.training.fit import search_progress


def run_reference(
    target: Target, num_particles: int = 2000, seed: int = 0, output: str | None = None, progress: bool = True
) -> None:
    """log Z without learning and without tuning: independent searches that go on until they agree.

    Arguments:
        target: the density.
        num_particles: the more, the narrower the interval; 50 to 200 evaluations of the target each.
        seed: of all noise.
        output: a JSON file for the estimate.
        progress: whether to show how far it is.

    Raises:
        InputError: if an argument is unusable, or the density is zero wherever the search looks.
    """
    check_count("seed", seed, minimum=0)
    if output is not None and (Path(output).is_dir() or not Path(output).resolve().parent.is_dir()):
        raise InputError(f"output must be a file in a folder that exists, got {output!r}.")
    counter = CountedTarget(target)
    with search_progress(None if progress else False) as told, naming_the_target(target, "The search"):
        result = reference(counter, num_particles, seed, progress=told)
    print(format_table(result.estimate, target.log_z))
    print(f"  {len(result.log_zs)} searches: {', '.join(f'{log_z:.3f}' for log_z, _ in result.log_zs)}")
    print(f"  {result.estimate.unseen:.1%} of the mass may be unseen, by what single ones have missed")
    for name, value in target.diagnostics(result.x).items():
        print(f"  {name.replace('_', ' ')}: {value:.4g}")
    if output is not None:
        results = {**result.estimate.to_dict(), "true_log_z": target.log_z, "target": type(target).__name__}
        Path(output).write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
        print(f"Results: {output}")
