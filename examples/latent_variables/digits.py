"""scikit-learn's digits with two latents, by GFlowNet-EM, a VAE or an IWAE: exact test log-likelihood.

python -m examples.latent_variables.digits --method gflownet-em --seed 0 --file digits.json
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from examples.latent_variables.decoders import BinomialDecoder
from examples.latent_variables.encoders import ImportanceWeighted, Variational
from examples.latent_variables.expectation import DiffusionPosterior
from examples.latent_variables.quadrature import exact_log_likelihood

METHODS = {
    "gflownet-em": lambda decoder, data, num_draws: DiffusionPosterior(decoder, data, num_draws),
    "vae": lambda decoder, data, num_draws: Variational(decoder, num_draws),
    "iwae": lambda decoder, data, num_draws: ImportanceWeighted(decoder, num_draws),
}
NUM_DRAWS, BATCH_SIZE, LEARNING_RATES = 8, 64, (1e-3, 3e-3)
CHECKS = 10  # of the validation data in a training: the best decoder of these is kept


def split_digits() -> tuple[Tensor, Tensor, Tensor]:
    """1197 images to train on, 300 to validate and 300 to test, always the same; pixels over 16, with shape (n, 64)."""
    from sklearn.datasets import load_digits

    images = torch.as_tensor(load_digits().data, dtype=torch.float32) / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order].split([1197, 300, 300])


def train(method: str, seed: int, lr: float, num_steps: int) -> dict[str, float]:
    """Train once; the test likelihood is that of the decoder that is best on the validation images."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    data, validation, test = split_digits()
    decoder = BinomialDecoder()
    model = METHODS[method](decoder, data, NUM_DRAWS)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    best, kept, spent, best_step = -float("inf"), decoder.state_dict(), 0.0, 0
    for step in range(1, num_steps + 1):
        begun = time.process_time()
        x = data[torch.randint(len(data), (BATCH_SIZE,), generator=generator)]
        optimizer.zero_grad()
        model.loss(x, generator).backward()
        nn.utils.clip_grad_norm_(trained, 100.0)
        optimizer.step()
        schedule.step()
        spent += time.process_time() - begun
        if step % max(1, num_steps // CHECKS) == 0:
            found = float(exact_log_likelihood(decoder, validation, num_points=150).mean())
            if found > best:
                best, best_step = found, step
                kept = {name: value.clone() for name, value in decoder.state_dict().items()}
    decoder.load_state_dict(kept)
    return {
        "validation": best,
        "best_step": best_step,
        "test": float(exact_log_likelihood(decoder, test).mean()),
        "test_finer_and_wider": float(exact_log_likelihood(decoder, test, 8.0, 600).mean()),
        "train_cpu_seconds": spent,
        "decoder_evaluations": num_steps * BATCH_SIZE * NUM_DRAWS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-steps", type=int, default=1000)
    parser.add_argument("--file", type=Path, required=True, help="results, one entry a training: those there are kept")
    args = parser.parse_args()
    found = json.loads(args.file.read_text()) if args.file.exists() else {}
    for lr in LEARNING_RATES:
        name = f"{args.method} seed {args.seed} lr {lr} steps {args.num_steps}"
        if name not in found:
            found[name] = train(args.method, args.seed, lr, args.num_steps)
            args.file.write_text(json.dumps(found, indent=1))
        print(name, found[name], flush=True)


if __name__ == "__main__":
    main()
