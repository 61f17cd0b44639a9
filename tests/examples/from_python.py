"""A checkpoint in Python, as docs/checkpoints.md shows it; the tests call this with a tiny one."""

import torch


def ask(path: str, image: torch.Tensor, question: str) -> tuple[str, torch.Tensor]:
    """The answer to a question about an image ``1 c h w`` in 0..1, and its masks."""
    # --8<-- [start:load]
    from geopix.task import GeoPixTask

    task = GeoPixTask.load_from_checkpoint(path, weights_only=True, map_location="cpu").eval()
    with torch.no_grad():
        seen = task.net.encode(image)  # once; then ask as often as you like
        prediction = task.net.generate(seen, [[question]], torch.tensor([0]))
    answer, masks = prediction.answers[0][0], prediction.drawing.mask_logits > 0
    # --8<-- [end:load]
    return answer, masks
