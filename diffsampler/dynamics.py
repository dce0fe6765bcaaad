"""How probable trajectories are: the densities of paths from anywhere, in one batched pass.

Everything here is in the sampler's own coordinates.
"""

import sys
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffsampler.trajectory import Path, Trajectory
from diffsampler.walker import Walker

__all__ = ["Dynamics"]

# Rows (steps x trajectories) of one piece of the batched pass: on a CPU, activations of this many stay in cache.
CPU_CHUNK_ROWS = 6400
# On other devices one piece is fastest, but the activations of a piece are there together when it is computed again.
CHECKPOINTED_ROWS = 1 << 18
# Above this many rows a CPU does not keep activations: they are 4 to 9 KB a row in the default networks.
MAX_KEPT_ROWS = 1 << 18


class Dynamics(Walker):
    """Walks and their densities. Arguments as in `Walker`.

    Attributes:
        checkpoint_activations: whether training computes activations twice instead of keeping them; None for: on a
            CPU, where a batch has more than a quarter of a million states.
    """

    checkpoint_activations: bool | None = None

    def evaluate(self, path: Path, with_flow: bool = True) -> Trajectory:
        """The densities of a path under the current model, with gradients to its parameters.

        Target values that the path does not carry are evaluated here, in one batch.

        Arguments:
            path: states, from anywhere.
            with_flow: whether to evaluate the flow too, and with it what it needs of the target.
        """
        with_flow = with_flow and self.flow is not None
        log_prob, score = self._target_values(path, with_flow and self.flow.uses_interpolation)
        s, t = path.times[:-1, None, None], path.times[1:, None, None]
        x, y = path.x[:-1], path.x[1:]
        score_x, score_y = (None, None) if score is None else (score[:-1], score[1:])
        score_b = score_x if self.process.scores_destination else score_y
        times = path.times.to(self.dtype)
        if self.process.shares_control:
            control = self._in_chunks(self.drift, self.drift.embed(times), path.x, score)
            forward, backward = control[:-1], control[1:]
        else:
            forward = self._in_chunks(self.drift, self.drift.embed(times[:-1]), x, score_x)
            backward = None
            if self.backward_drift is not None:
                embedding = self.backward_drift.embed(times[1:])
                backward = self._in_chunks(self.backward_drift, embedding, y, score_y)
        return Trajectory(
            log_pf=self.forward_kernel(s, t, x, forward, score_x).log_prob(y).double(),
            log_pb=self.backward_kernel(s, t, y, backward, score_b).log_prob(x).double(),
            log_prior=self.process.log_prior(path.x[0]).double(),
            log_prob=log_prob[-1].double(),
            log_z=self.log_z.double(),
            log_flow=self._log_flow(path, log_prob).double() if with_flow else None,
            path=path,
        )

    def log_pf_of(self, path: Path, step: Tensor, row: Tensor) -> Tensor:
        """log P_F of single transitions of a path, with shape (n) and gradients to the parameters.

        Arguments:
            path: states, from anywhere.
            step: the transitions' steps, in [0, T), with shape (n).
            row: their trajectories, in [0, B), with shape (n).
        """
        s, t = path.times[step, None, None], path.times[step + 1, None, None]
        # As n times of one trajectory each: what kernels and networks take.
        x, y = path.x[step, row].unsqueeze(1), path.x[step + 1, row].unsqueeze(1)
        score = None
        if self.uses_score:
            with torch.no_grad():
                score = self.counter.log_prob_and_score(x)[1] if path.score is None else path.score[step, row, None]
        embedding = self.drift.embed(path.times[:-1].to(self.dtype))[step].unsqueeze(1)
        kernel = self.forward_kernel(s, t, x, self.drift(embedding, x, score), score)
        return kernel.log_prob(y).double().squeeze(1)

    def log_uncontrolled_backward(self, path: Path) -> Tensor:
        """log P_B of every step without its control, float64, with shape (T, B)."""
        s, t = path.times[:-1, None, None], path.times[1:, None, None]
        y, score = path.x[1:], None
        if self.process.uses_score:
            _, score = self._target_values(path, everywhere=False)
            score = score[:-1] if self.process.scores_destination else score[1:]
        return self.process.backward_kernel(s, t, y, torch.zeros_like(y), score).log_prob(path.x[:-1]).double()

    def _target_values(self, path: Path, everywhere: bool) -> tuple[Tensor, Tensor | None]:
        """log R, with shape (T + 1, B) or, unless it is wanted everywhere, (1, B), and the score if it is used."""
        if self.uses_score:
            if path.score is not None:
                return path.log_prob, path.score
            with torch.no_grad():
                return self.counter.log_prob_and_score(path.x)
        if path.log_prob is not None and (len(path.log_prob) > 1 or not everywhere):
            return path.log_prob, None
        with torch.no_grad():
            return self.counter.log_prob(path.x if everywhere else path.x[-1:]), None

    def _in_chunks(self, network: nn.Module, embedding: Tensor, x: Tensor, more: Tensor | None) -> Tensor:
        """The network at all states, with shape (K, B, *), for an embedding with shape (K, E)."""
        asked = self.checkpoint_activations
        checkpointed = (x.device.type == "cpu" and len(x) * x.shape[1] > MAX_KEPT_ROWS) if asked is None else asked
        size = max(1, _chunk_rows(x.device, checkpointed) // x.shape[1])
        parts = [slice(start, start + size) for start in range(0, len(x), size)]
        call = partial(checkpoint, network, use_reentrant=False) if checkpointed else network
        embedding = embedding.unsqueeze(1)
        return torch.cat([call(embedding[part], x[part], None if more is None else more[part]) for part in parts])

    def _log_flow(self, path: Path, log_prob: Tensor) -> Tensor:
        """log F at interior times, with shape (T - 1, B)."""
        x, t = path.x[1:-1], path.times[1:-1, None]
        if not len(x):
            return x.new_empty(0, x.shape[1])
        embedding = self.flow.embed(path.times[1:-1].to(self.dtype))
        return self._in_chunks(self.flow, embedding, x, self._interpolation(t, x, log_prob[1:-1]))


def _chunk_rows(device: torch.device, checkpointed: bool) -> int:
    if device.type == "cpu":
        return CPU_CHUNK_ROWS
    return CHECKPOINTED_ROWS if checkpointed else sys.maxsize
