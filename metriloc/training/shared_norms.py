"""Batch norms over several processes: means and variances of what all of them see together, as in torch's SyncBatchNorm.

Torch's own wants GPUs; this one works wherever the processes can add up (gloo, NCCL).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SharedBatchNorm(nn.BatchNorm2d):
    """A batch norm whose training statistics are those of all processes; in evaluation a plain one.

    Every process must call it equally often.
    """

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Normalized by the mean and variance over the batches of all processes."""
        if not (self.training and dist.is_initialized()):
            return super().forward(input)
        mean, variance, count = shared_moments(input)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                step = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
                unbiased = variance * count / (count - 1).clamp(min=1)
                self.running_mean.lerp_(mean.to(self.running_mean), step)
                self.running_var.lerp_(unbiased.to(self.running_var), step)
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        shift = self.bias if self.affine else torch.zeros_like(scale)
        return (input - mean[:, None, None]) * scale[:, None, None] + shift[:, None, None]


def shared_moments(
    input: Float[Tensor, "B C H W"],
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"], Float[Tensor, ""]]:
    """Mean, variance and number of values of each channel over all processes; gradients go to all of them."""
    own = input.new_tensor([input.shape[0] * input.shape[2] * input.shape[3]])
    sums = all_reduce(torch.cat([input.sum((0, 2, 3)), own]))
    mean, count = sums[:-1] / sums[-1], sums[-1].detach()
    # a second message: the mean of squares less the square of the mean would lose digits
    squares = all_reduce((input - mean[:, None, None]).square().sum((0, 2, 3)))
    return mean, squares / count, count


def share_batch_norms(module: nn.Module) -> None:
    """Make every ``BatchNorm2d`` inside a shared one, in place; parameters, buffers and modes stay as they are."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            shared = SharedBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            shared._parameters, shared._buffers, shared.training = child._parameters, child._buffers, child.training
            setattr(module, name, shared)
        else:
            share_batch_norms(child)
