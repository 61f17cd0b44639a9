"""What a decoder says of its own masks, against what they are: whether the thing is there at all, and how well the mask fits."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric

BINS = 15
_STILL = 1e-12


def presence_sums(probability: Float[Tensor, " m"], truth: Bool[Tensor, " m"]) -> Float64[Tensor, " k"]:
    """Of probabilities: the sum of squared errors, and by :data:`BINS` equal bins how many, their sum, and how many true ones.

    A bin holds its lower edge and not its upper one; the last holds 1 as well.

    Args:
        probability: in [0, 1], that the thing asked for is there.
        truth: whether it is.

    Raises:
        ValueError: when the lengths differ, or a probability is outside [0, 1] or NaN.
    """
    stated, there = probability.double(), truth.double()
    if stated.shape != there.shape or not bool(((stated >= 0) & (stated <= 1)).all()):
        raise ValueError(
            f"one probability from 0 to 1 per truth is needed; found {len(stated)} and {len(there)}, among them {stated.tolist()[:8]}. "
            "Hand logits through a sigmoid."
        )
    edges = torch.arange(1, BINS, dtype=torch.float64, device=stated.device) / BINS
    bins = one_hot(torch.bucketize(stated, edges, right=True), BINS).double()
    squared = ((stated - there) ** 2).sum()
    return torch.cat([squared[None], bins.sum(0), stated @ bins, there @ bins])


def presence_scores(sums: Float64[Tensor, "*s k"]) -> dict[str, Float64[Tensor, "*s"]]:
    """The scores of :class:`PresenceCalibration` from :func:`presence_sums`."""
    counts, stated, there = sums[..., 1:].unflatten(-1, (3, BINS)).unbind(-2)
    count = counts.sum(-1)
    return {"ece": (stated - there).abs().sum(-1) / count, "brier": sums[..., 0] / count, "count": count}


class PresenceCalibration(Metric):
    """Whether a stated probability that something is there can be taken at its word; both errors in [0, 1], 0 is best.

    - ``ece``: expected calibration error: over 15 equal bins of the probability, the distance between its mean and the share of true ones, weighed by
      how many fall into the bin;
    - ``brier``: mean squared distance of the probability from 0 or 1;
    - ``count``: how many were scored.

    Without any both errors are NaN. AUROC is left out: it is no function of sums.

    Source: Guo et al., "On calibration of modern neural networks" (https://arxiv.org/abs/1706.04599); G. W. Brier, "Verification of forecasts
    expressed in terms of probability" (1950).

    Example:
        >>> metric = PresenceCalibration()
        >>> metric.update(torch.tensor([0.75, 0.75]), torch.tensor([True, False]))
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'ece': 0.25, 'brier': 0.3125, 'count': 2.0}
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(1 + 3 * BINS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, probability: Float[Tensor, " m"], truth: Bool[Tensor, " m"]) -> None:
        """Count stated probabilities against what is there.

        Raises:
            ValueError: when the lengths differ, or a probability is outside [0, 1] or NaN.
        """
        self.sums += presence_sums(probability, truth).to(self.sums.device)

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        """The scores so far, over all processes."""
        return presence_scores(self.sums)


def quality_sums(predicted: Float[Tensor, " m"], true: Float[Tensor, " m"]) -> Float64[Tensor, " k"]:
    """Of masks: how many, the sum of distances between predicted and true IoU, and the sums, squares and products of the two.

    Args:
        predicted: the IoU that the decoder expects of each mask.
        true: the IoU that it has.

    Raises:
        ValueError: when the lengths differ, or a number is not finite.
    """
    x, y = predicted.double(), true.double()
    if x.shape != y.shape or not bool((x.isfinite() & y.isfinite()).all()):
        raise ValueError(f"one finite predicted IoU per true one is needed; found {len(x)} and {len(y)}, among them {x.tolist()[:8]} and {y.tolist()[:8]}.")
    return torch.stack([torch.ones_like(x), (x - y).abs(), x, y, x * x, y * y, x * y]).sum(1)


def quality_scores(sums: Float64[Tensor, "*s k"]) -> dict[str, Float64[Tensor, "*s"]]:
    """The scores of :class:`QualityError` from :func:`quality_sums`."""
    count, distance = sums[..., 0], sums[..., 1]
    x, y, xx, yy, xy = (sums[..., 2:] / count[..., None]).unbind(-1)
    x_varies, y_varies = xx - x * x, yy - y * y
    moves = (x_varies > _STILL) & (y_varies > _STILL)
    correlation = (xy - x * y) / (x_varies.clamp(min=_STILL) * y_varies.clamp(min=_STILL)).sqrt()
    return {"mae": distance / count, "bias": x - y, "correlation": torch.where(moves, correlation.clamp(-1, 1), torch.nan), "count": count}


class QualityError(Metric):
    """How well a decoder knows the IoU of the masks it draws.

    - ``mae``: mean distance between the IoU it expects and the one that is, 0 is best;
    - ``bias``: mean of the expected minus the true one: above 0 it thinks too well of its masks;
    - ``correlation``: Pearson's, in [-1, 1]: whether the better masks can be told from the worse. NaN where either hardly varies (variance below 1e-12);
    - ``count``: how many masks were scored.

    Without masks the rest is NaN.

    Source: the IoU head of SAM (https://arxiv.org/abs/2304.02643), judged as any forecast of a number.

    Example:
        >>> metric = QualityError()
        >>> metric.update(torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.5]))
        >>> {name: round(value.item(), 6) for name, value in metric.compute().items()}
        {'mae': 0.375, 'bias': 0.375, 'correlation': 1.0, 'count': 2.0}
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(7, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Float[Tensor, " m"], true: Float[Tensor, " m"]) -> None:
        """Count the IoU expected of masks against the one they have.

        Raises:
            ValueError: when the lengths differ, or a number is not finite.
        """
        self.sums += quality_sums(predicted, true).to(self.sums.device)

    def compute(self) -> dict[str, Float64[Tensor, ""]]:
        """The scores so far, over all processes."""
        return quality_scores(self.sums)
