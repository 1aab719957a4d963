"""BiSeNet on a ResNet-18, the face parsing network, with the weight names of its public file.

Architecture: Yu et al., "BiSeNet: Bilateral Segmentation Network" (ECCV 2018), in the form
whose 19-class face weights MuseTalk uses. The file also holds two auxiliary heads of training
(``conv_out16``, ``conv_out32``); they are kept so that it fits exactly, and not computed.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

CLASSES = 19


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inner: int, outer: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inner, H, W] -> [B, outer, H/stride, W/stride]."""
        return functional.relu(self.bn(self.conv(x)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (ResNet-18)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.downsample: nn.Module | None = None
        if inner != outer or stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inner, H, W] -> [B, outer, H/stride, W/stride]."""
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(shortcut + residual)


class Resnet18(nn.Module):
    """Backbone; its features at 1/8, 1/16 and 1/32 of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._stage(64, 64, 1)
        self.layer2 = self._stage(64, 128, 2)
        self.layer3 = self._stage(128, 256, 2)
        self.layer4 = self._stage(256, 512, 2)

    @staticmethod
    def _stage(inner: int, outer: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(inner, outer, stride), BasicBlock(outer, outer, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[B, 3, H, W] -> 128 channels at H/8, 256 at H/16, 512 at H/32."""
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class AttentionRefinement(nn.Module):
    """Features weighted by a gate computed from their own mean."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(inner, outer)
        self.conv_atten = nn.Conv2d(outer, outer, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(outer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inner, H, W] -> [B, outer, H, W]."""
        features: torch.Tensor = self.conv(x)
        mean = features.mean((2, 3), keepdim=True)
        return features * torch.sigmoid(self.bn_atten(self.conv_atten(mean)))


class ContextPath(nn.Module):
    """Backbone and two attention refinements, brought back to 1/8 and 1/16."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = Resnet18()
        self.arm16 = AttentionRefinement(256, 128)
        self.arm32 = AttentionRefinement(512, 128)
        self.conv_head32 = ConvBNReLU(128, 128)
        self.conv_head16 = ConvBNReLU(128, 128)
        self.conv_avg = ConvBNReLU(512, 128, kernel=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, 3, H, W] -> backbone and context features, 128 channels each at H/8."""
        eighth, sixteenth, last = self.resnet(x)
        overall = self.conv_avg(last.mean((2, 3), keepdim=True))
        context = self.arm32(last) + overall
        context = self.conv_head32(functional.interpolate(context, scale_factor=2.0))
        context = self.arm16(sixteenth) + context
        context = self.conv_head16(functional.interpolate(context, scale_factor=2.0))
        return eighth, context


class FeatureFusion(nn.Module):
    """Backbone and context features together, gated by their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.convblk = ConvBNReLU(256, 256, kernel=1)
        self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, backbone: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Two [B, 128, H, W] -> [B, 256, H, W]."""
        features: torch.Tensor = self.convblk(torch.cat([backbone, context], 1))
        gate = functional.relu(self.conv1(features.mean((2, 3), keepdim=True)))
        return features * torch.sigmoid(self.conv2(gate)) + features


class Head(nn.Module):
    """Class scores from features."""

    def __init__(self, inner: int, middle: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(inner, middle)
        self.conv_out = nn.Conv2d(middle, CLASSES, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inner, H, W] -> [B, 19, H, W]."""
        scores: torch.Tensor = self.conv_out(self.conv(x))
        return scores


class BiSeNet(nn.Module):
    """Face parsing: normalised RGB image to scores of 19 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion()
        self.conv_out = Head(256, 256)
        self.conv_out16 = Head(128, 64)
        self.conv_out32 = Head(128, 64)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] (ImageNet-normalised RGB) -> scores [B, 19, H, W] of the first head."""
        backbone, context = self.cp(image)
        scores = self.conv_out(self.ffm(backbone, context))
        return functional.interpolate(
            scores, size=image.shape[2:], mode="bilinear", align_corners=True
        )
