"""Operators of the generator: a readable torch reference, and compiled kernels that are checked against it."""

from sg3cli.nets.ops.filtered_lrelu import filtered_lrelu
from sg3cli.nets.ops.filters import design_lowpass_filter
from sg3cli.nets.ops.modulated_conv import modulated_conv2d
from sg3cli.nets.ops.upfirdn import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

__all__ = [
    "design_lowpass_filter",
    "downsample2d",
    "filter2d",
    "filtered_lrelu",
    "modulated_conv2d",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
