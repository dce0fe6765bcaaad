"""Checkpoints that are whole or not there."""

from io import BytesIO
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from diffsampler.files import write_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's own writes to a temporary folder and moves: where that is another device, a kill loses both."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any | None = None) -> None:
        content = BytesIO()  # torch's own writer loses what the system says of a full disk
        torch.save(checkpoint, content)
        write_atomically(path, lambda file: file.write(content.getbuffer()))
