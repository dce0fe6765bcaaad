"""The command line: `diffsampler fit | validate | test | predict | reference | compare`."""

import sys

__all__ = ["main"]

HELP = """usage: diffsampler COMMAND [options]

Sample an unnormalized density and estimate its log Z.

commands:
  fit        train a sampler, estimate log Z, say whether the estimate can be trusted
  validate   evaluate a checkpoint as training does
  test       the log Z table, results.json and figures of a checkpoint, in the folder test of its run
  predict    draws of a checkpoint and their log-weights: samples.npz
  reference  log Z without training: something to compare with
  compare    models by the log Z of their runs: log Bayes factors, probabilities

`diffsampler COMMAND --help` shows the options of a command, `diffsampler fit --model.target.help NAME` the arguments of
a class. Classes of your own are found in the working folder: --model.target=my_file.MyTarget.
"""


def main(args: list[str] | None = None) -> None:
    """Run the command line; a mistake of the user's ends in one line on stderr and exit code 2."""
    if (sys.argv[1:] if args is None else args) in (["--help"], ["-h"]):
        print(HELP, end="")
        return
    # Lightning takes seconds to import: who asks for help need not wait.
    from diffsampler.cli.command_line import run

    run(args)
