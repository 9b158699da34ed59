"""Sizes, layers and rotary positions that the modules share."""

import torch
import torch.nn as nn

D, H = (32, 4)
d = D // H


def linear(a=D, b=D, bias=True):
    return nn.Linear(a, b, bias)


def heads(x, h=H):
    B, N, C = x.shape
    return x.view(B, N, h, C // h).transpose(1, 2)


def merge(x):
    B, h, N, dd = x.shape
    return x.transpose(1, 2).reshape(B, N, h * dd)


def rope(q, k, n):
    dd = q.shape[-1]
    inverse = 1 / 10000 ** (torch.arange(0, dd, 2).float() / dd)
    angles = torch.outer(torch.arange(n).float(), inverse)
    angles = torch.cat((angles, angles), -1)
    c, s = angles.cos()[None, None], angles.sin()[None, None]

    def half(x):
        return torch.cat((-x[..., dd // 2 :], x[..., : dd // 2]), -1)

    return q * c + half(q) * s, k * c + half(k) * s


class QKV(nn.Module):
    """The layers that most modules below share."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = linear(), linear(), linear(), linear()

    def qkv(self, x, c=None):
        c = x if c is None else c
        return heads(self.q(x)), heads(self.k(c)), heads(self.v(c))
