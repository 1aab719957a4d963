"""The end of a small decoder, computed at half its resolution.

The last level of an ``AutoencoderTiny`` may have no blocks, and its last convolution may use the
middle of its kernel only. What is left of the level is linear: nearest neighbours to twice the
size, a convolution of 3 by 3, a sum of its channels. Every output pixel is then a sum over pixels
before the upsampling, with one of four kernels by its place in the block of two by two: one
convolution at a quarter of the pixels. The result is the same one, block by block.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny
from torch import nn


def folded_kernel(first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """The kernel that does what upsampling, a convolution and a sum of channels do.

    With ``up(x)[r] = x[floor(r / 2)]``, output pixel ``2 i + p`` is along each axis the sum over
    ``u`` of -1, 0, 1 of ``both[u] * x[i + floor((p + u) / 2)]``, where ``both`` is the first
    kernel with its outputs summed by the last.

    Args:
        first: F32[m,i,3,3], of the convolution behind the upsampling; it has no bias.
        last: F32[o,m], of the sum.

    Returns:
        F32[4*o,i,3,3]: row and column in the block, output.
    """
    both = torch.einsum("om,miuv->oiuv", last.double(), first.double())
    lands = torch.zeros(2, 3, 3, dtype=torch.float64)
    for place in range(2):
        for tap in range(3):
            lands[place, (place + tap - 1) // 2 + 1, tap] = 1
    kernel = torch.einsum("pau,qbv,oiuv->pqoiab", lands, lands, both)
    return kernel.flatten(0, 2).float()


def fold_end(vae: AutoencoderTiny) -> bool:
    """Fold the last level of the decoder, where that gives the same pictures.

    Returns:
        Whether the decoder makes blocks now, F32[b,12,h,w] BGR, for ``picture``.
    """
    *front, up, first, last = vae.decoder.layers
    if not isinstance(up, nn.Upsample) or first.bias is not None:
        return False  # a level with blocks
    around = last.weight.detach().clone()
    around[:, :, 1, 1] = 0
    if around.any():
        return False  # at the picture's edge it sees zeros, where the folded kernel would see more
    to_bgr = last.weight.detach()[:, :, 1, 1].flip(0)
    kernel = folded_kernel(first.weight.detach(), to_bgr)
    folded = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
    folded.weight = nn.Parameter(kernel, requires_grad=False)
    folded.bias = nn.Parameter(last.bias.detach().flip(0).repeat(4), requires_grad=False)
    vae.decoder.layers = nn.Sequential(*front, folded)
    return True


def picture(blocks: torch.Tensor) -> torch.Tensor:
    """Blocks of two by two pixels, [b,4*c,h,w], as pictures [b,2*h,2*w,c]."""
    _, channels, height, width = blocks.shape
    apart = blocks.reshape(-1, 2, 2, channels // 4, height, width)
    return apart.permute(0, 4, 1, 5, 2, 3).reshape(-1, 2 * height, 2 * width, channels // 4)
