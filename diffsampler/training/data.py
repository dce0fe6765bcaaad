"""The "data" of a sampler: a count of trajectories."""

import lightning as L
from torch.utils.data import DataLoader

from diffsampler.errors import check_count


class TrajectoryCounts(L.LightningDataModule):
    """How many trajectories each step draws. A batch is a number, an epoch the interval between validations.

    All devices draw alike: numbers of draws are rounded up to a multiple of the number of devices.

    Arguments:
        batch_size: trajectories of a training step, on each device.
        steps_per_epoch: training steps between validations and checkpoints.
        num_eval_samples: draws of a validation, over all devices.
        num_test_samples: draws of the final estimate and of `test`, over all devices.
        num_predict_samples: draws that `predict` writes, over all devices.
        chunk_size: draws made at a time in evaluation.
    """

    def __init__(
        self,
        batch_size: int = 256,
        steps_per_epoch: int = 100,
        num_eval_samples: int = 2000,
        num_test_samples: int = 10_000,
        num_predict_samples: int = 10_000,
        chunk_size: int = 10_000,
    ) -> None:
        super().__init__()
        self.batch_size = check_count("batch_size", batch_size)
        self.steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch)
        self.num_eval_samples = check_count("num_eval_samples", num_eval_samples)
        self.num_test_samples = check_count("num_test_samples", num_test_samples)
        self.num_predict_samples = check_count("num_predict_samples", num_predict_samples)
        self.chunk_size = check_count("chunk_size", chunk_size)

    def train_dataloader(self) -> DataLoader:
        return _loader([self.batch_size] * self.steps_per_epoch)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.num_eval_samples)

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.num_test_samples)

    def predict_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.num_predict_samples)

    def _evaluation_loader(self, total: int) -> DataLoader:
        world_size = 1 if self.trainer is None else self.trainer.world_size
        share = -(-total // world_size)
        return _loader([min(self.chunk_size, share - done) for done in range(0, share, self.chunk_size)])


def _loader(counts: list[int]) -> DataLoader:
    return DataLoader(counts, batch_size=None)
