"""How a device computes: in bf16 or fp32, and with numbers too small for the usual format or without."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def denormals_flushed(device: torch.device) -> Iterator[None]:
    """On a CPU, numbers too small for the usual format count as 0: gradients over long windows are full of them."""
    flushes = device.type == "cpu" and torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if flushes:
            torch.set_flush_denormal(False)


def wants_bf16(precision: str, device: torch.device) -> bool:
    """Whether to train in bf16; ValueError where it is asked for and the machine has none."""
    if precision == "fp32" or (precision == "auto" and not fast_at_bf16(device)):
        return False
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            nn.LSTM(8, 8, device=device)(torch.zeros(2, 2, 8, device=device))[0].sum().backward()
    except RuntimeError as error:
        if precision == "auto":
            return False
        raise ValueError(f"precision bf16 cannot be used on this {device.type} ({error}); use auto or fp32") from None
    return True


def fast_at_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 itself; elsewhere it is imitated, slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probes = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return device.type == "cpu" and any(probe() for probe in probes if probe is not None)
