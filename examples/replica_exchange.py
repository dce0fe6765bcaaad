"""Replica exchange molecular dynamics of alanine dipeptide, by OpenMM on one core: a reference for phi and psi.

    python -m examples.replica_exchange --sweeps 100000 --output runs/replica_exchange.pt
    python -m examples.replica_exchange --output runs/replica_exchange.pt --compare samples.npz

Replicas at temperatures from 300 to 1000 K move by OpenMM's LangevinMiddleIntegrator, and after each sweep neighbours
swap temperatures with probability min(1, exp((beta_i - beta_j) (E_i - E_j))), which leaves exp(-sum_i beta_i E_i) as it
is (Sugita & Okamoto, 1999, https://doi.org/10.1016/S0009-2614(99)01123-9). Steps of 1 fs do not: their positions are
exact for harmonic forces, and otherwise have a bias of the order of the squared step. Saved every 500 sweeps; the same
command goes on, with new noise. Draws to compare with are what `diffsampler predict` writes: x and log_weight.
"""

import argparse
import math
from functools import partial
from pathlib import Path

import numpy as np
import openmm
import torch
from tqdm import tqdm

from diffsampler.density import or_zero_density
from diffsampler.files import write_atomically
from diffsampler.molecules import boltzmann_constant
from diffsampler.report.angle_metrics import NUM_BINS, angle_divergence
from targets import AlanineDipeptide

NUM_STEPS, BLOCK = 100, 500  # steps in a sweep, sweeps between two savings
STEP, FRICTION = 1e-3, 1.0  # ps, 1 / ps
BURN_IN = 0.05  # the share of sweeps that a comparison leaves out
TEMPERATURES = [300 * (10 / 3) ** (k / 5) for k in range(6)]  # in K; a third of the swaps is accepted


class ReplicaExchange:
    """Walkers of the System of the library's bridge to OpenMM, at temperatures of their own, which they swap."""

    def __init__(self, target: AlanineDipeptide, seed: int) -> None:
        self.betas = [1 / boltzmann_constant(temperature) for temperature in TEMPERATURES]
        self.random = np.random.default_rng(seed)
        self.walker_at = list(range(len(TEMPERATURES)))  # by temperature
        self.swaps = torch.zeros(2, len(TEMPERATURES) - 1)  # tried and accepted
        platform = openmm.Platform.getPlatformByName("Reference")  # 33 us a step; "CPU" with one thread takes 500
        self.walkers = []
        for temperature in TEMPERATURES:
            integrator = openmm.LangevinMiddleIntegrator(temperature, FRICTION, STEP)
            integrator.setRandomNumberSeed(int(self.random.integers(1, 2**31)))
            walker = openmm.Context(target.molecule.system, integrator, platform)
            walker.setPositions(target.molecule.positions)
            openmm.LocalEnergyMinimizer.minimize(walker)
            walker.setVelocitiesToTemperature(temperature, int(self.random.integers(1, 2**31)))
            self.walkers.append(walker)

    def sweep(self) -> tuple[np.ndarray, list[float]]:
        """Move all, and swap some: positions in nm, with shape (K, 3 n), and K energies in kJ / mol, before swaps."""
        x, energy = [], []
        for walker in (self.walkers[w] for w in self.walker_at):
            walker.getIntegrator().step(NUM_STEPS)
            state = walker.getState(getPositions=True, getEnergy=True)
            x.append(state.getPositions(asNumpy=True)._value.reshape(-1))
            energy.append(state.getPotentialEnergy()._value)
        for low in range(int(self.random.integers(2)), len(TEMPERATURES) - 1, 2):  # even pairs or odd ones
            log_ratio = (self.betas[low] - self.betas[low + 1]) * (energy[low] - energy[low + 1])
            accepted = math.log(1 - self.random.random()) < log_ratio
            self.swaps[:, low] += torch.tensor([1, accepted])
            if accepted:
                self._swap(low)
        return np.array(x), energy

    def state_dict(self) -> dict:
        states = [walker.getState(getPositions=True, getVelocities=True) for walker in self.walkers]
        positions = torch.from_numpy(np.array([state.getPositions(asNumpy=True)._value for state in states]))
        velocities = torch.from_numpy(np.array([state.getVelocities(asNumpy=True)._value for state in states]))
        return {
            "positions": positions,
            "velocities": velocities,
            "walker_at": [*self.walker_at],
            "swaps": self.swaps.clone(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.walker_at, self.swaps = state["walker_at"], state["swaps"]
        for walker, x, v in zip(self.walkers, state["positions"], state["velocities"], strict=True):
            walker.setPositions(x.numpy())
            walker.setVelocities(v.numpy())
        for k, temperature in enumerate(TEMPERATURES):
            self.walkers[self.walker_at[k]].getIntegrator().setTemperature(temperature)

    def _swap(self, low: int) -> None:
        self.walker_at[low : low + 2] = self.walker_at[low : low + 2][::-1]
        for new, old in ((low, low + 1), (low + 1, low)):
            walker = self.walkers[self.walker_at[new]]
            velocities = walker.getState(getVelocities=True).getVelocities(asNumpy=True)._value
            walker.setVelocities(math.sqrt(TEMPERATURES[new] / TEMPERATURES[old]) * velocities)
            walker.getIntegrator().setTemperature(TEMPERATURES[new])


def simulate(target: AlanineDipeptide, output: Path, num_sweeps: int, seed: int) -> dict:
    """Go on until there are as many sweeps as asked for: what is saved, by name, a row for each sweep."""
    saved = torch.load(output) if output.exists() else {}
    done = len(saved.get("energy", ()))
    replicas = ReplicaExchange(target, seed + done)
    if done:
        replicas.load_state_dict(saved["state"])
    with tqdm(total=num_sweeps, initial=done, unit="sweep", disable=done >= num_sweeps) as progress:
        while done < num_sweeps:
            rows = [replicas.sweep() for _ in range(min(BLOCK, num_sweeps - done))]
            x = torch.from_numpy(np.array([row[0] for row in rows]))
            new = {name: angle(x) for name, angle in target.observables.items()}
            new |= {"energy": torch.tensor([row[1] for row in rows]), "x": x[:, 0]}
            saved = {name: torch.cat([saved[name], one.float()]) if done else one.float() for name, one in new.items()}
            saved["state"] = replicas.state_dict()
            write_atomically(output, partial(torch.save, saved))
            done += len(rows)
            progress.update(len(rows))
    return saved


def compare(saved: dict, file: Path, target: AlanineDipeptide) -> None:
    """KL divergences of draws from 300 K; the floor is that of as many rows of the second half from the first."""
    draws = np.load(file)
    x = torch.from_numpy(draws["x"])
    log_weight = torch.from_numpy(draws["log_weight"]).double() if "log_weight" in draws else torch.zeros(len(x))
    share = or_zero_density(log_weight).softmax(0)
    ess = round(1 / float(share.square().sum()))
    print(f"{len(x)} draws, ESS {ess}; {NUM_BINS} bins")
    for name in ("phi", "psi"):
        of_draws, chain = target.observables[name](x), saved[name][int(BURN_IN * len(saved[name])) :, 0]
        first, second = chain.chunk(2)
        few = second[torch.linspace(0, len(second) - 1, min(ess, len(second))).long()]
        kl, floor = angle_divergence(of_draws, chain, log_weight), angle_divergence(few, first)
        above = float(share @ (of_draws > 0).double()), float((chain > 0).double().mean())
        print(f"{name}: KL {kl:.4f}, floor {floor:.4f}; above 0: {above[0]:.4f}, chain {above[1]:.4f}")


def main(args: list[str] | None = None) -> None:
    """Simulate, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("runs/replica_exchange.pt"))
    parser.add_argument("--sweeps", type=int, default=0, help="in all, those of before included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", type=Path, help="draws: an npz file with x and, if weighted, log_weight")
    options = parser.parse_args(args)
    if not options.sweeps and not options.output.exists():
        parser.error(f"{options.output} is not there: give --sweeps, how many to make.")
    target = AlanineDipeptide(TEMPERATURES[0])
    saved = simulate(target, options.output, options.sweeps, options.seed)
    tried, accepted = saved["state"]["swaps"]
    rows = {"K": torch.tensor(TEMPERATURES), "mean kJ / mol": saved["energy"].mean(0), "swaps": accepted / tried}
    for name, one in (rows | {"configurations of D": (1 - saved["chirality"]).sum(0)}).items():
        print(f"{name}:", *(f"{value:.4g}" for value in one))
    if options.compare:
        compare(saved, options.compare, target)


if __name__ == "__main__":
    main()
