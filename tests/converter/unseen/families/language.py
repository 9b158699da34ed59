"""Attention of language models, as their code spells it."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from .layers import QKV, D, H, d, heads, linear, merge, rope


class NnDecoderStatic(nn.Module):
    """torch.nn.TransformerDecoder with self and cross attention, norm first."""

    def __init__(self):
        super().__init__()
        self.m = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(32, 4, 64, batch_first=True, norm_first=True), 2
        )

    def forward(self, x, mem):
        return self.m(x, mem)


class NnMhaBiasKv(nn.Module):
    """torch.nn.MultiheadAttention that appends a learned key and value."""

    def __init__(self):
        super().__init__()
        self.m = nn.MultiheadAttention(32, 4, add_bias_kv=True)

    def forward(self, x):
        return self.m(x, x, x, need_weights=False)[0]


class NnMhaZeroAttn(nn.Module):
    """torch.nn.MultiheadAttention that appends a key and value of zeros."""

    def __init__(self):
        super().__init__()
        self.m = nn.MultiheadAttention(32, 4, add_zero_attn=True)

    def forward(self, x):
        return self.m(x, x, x, need_weights=False)[0]


class XlnetEinsum(nn.Module):
    """XLNet: sequence first, relative positions by index_select."""

    def __init__(self):
        super().__init__()
        P = lambda: nn.Parameter(torch.randn(D, H, d) * 0.2)
        self.q, self.k, self.v, self.r, self.o = (P(), P(), P(), P(), P())
        self.rw = nn.Parameter(torch.randn(H, d))
        self.rr = nn.Parameter(torch.randn(H, d))
        self.register_buffer("pe", torch.randn(64, 1, 32))

    def forward(self, h):
        N = h.shape[0]
        q = torch.einsum("ibh,hnd->ibnd", h, self.q)
        k = torch.einsum("ibh,hnd->ibnd", h, self.k)
        v = torch.einsum("ibh,hnd->ibnd", h, self.v)
        r = torch.einsum("ibh,hnd->ibnd", self.pe[: 2 * N].expand(-1, h.shape[1], -1), self.r)
        ac = torch.einsum("ibnd,jbnd->bnij", q + self.rw, k)
        bd = torch.einsum("ibnd,jbnd->bnij", q + self.rr, r)
        b = bd.reshape(bd.shape[0], bd.shape[1], bd.shape[3], bd.shape[2])[:, :, 1:, :].reshape(
            bd.shape[0], bd.shape[1], bd.shape[2], bd.shape[3] - 1
        )
        bd = torch.index_select(b, 3, torch.arange(N))
        a = F.softmax((ac + bd + 0) * (1 / d**0.5), dim=3)
        return torch.einsum("ibnd,hnd->ibh", torch.einsum("bnij,jbnd->ibnd", a, v), self.o)


class Transfoxl(XlnetEinsum):
    """Transformer-XL: scores of layout [query, key, batch, head], softmax over axis 1."""

    def forward(self, w):
        N = w.shape[0]
        q = torch.einsum("ibh,hnd->ibnd", w, self.q)
        k = torch.einsum("ibh,hnd->ibnd", w, self.k)
        v = torch.einsum("ibh,hnd->ibnd", w, self.v)
        r = torch.einsum("ih,hnd->ind", self.pe[:N, 0], self.r)
        ac = torch.einsum("ibnd,jbnd->ijbn", q + self.rw, k)
        bd = torch.einsum("ibnd,jnd->ijbn", q + self.rr, r)
        zp = torch.zeros((bd.size(0), 1) + bd.size()[2:])
        x = torch.cat([zp, bd], 1).view((bd.size(1) + 1, bd.size(0)) + bd.size()[2:])[1:].view_as(bd)
        sc = (ac + x) * (1 / d**0.5)
        m = torch.triu(torch.ones(N, N), 1).bool()[:, :, None, None]
        sc = sc.float().masked_fill(m, -1e30).type_as(sc)
        p = F.softmax(sc, dim=1)
        return torch.einsum("ibnd,hnd->ibh", torch.einsum("ijbn,jbnd->ibnd", p, v), self.o)


class DebertaV1(nn.Module):
    """DeBERTa: disentangled attention gathered by relative position, XSoftmax."""

    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(D, 3 * D, bias=False)
        self.qb = nn.Parameter(torch.randn(D))
        self.vb = nn.Parameter(torch.randn(D))
        self.pp = nn.Linear(D, D, bias=False)
        self.pq = nn.Linear(D, D)
        self.rel = nn.Parameter(torch.randn(32, D))

    def forward(self, x, am):
        em = am.unsqueeze(1).unsqueeze(2)
        am = em * em.squeeze(-2).unsqueeze(-1)
        N = x.shape[1]
        qkv = self.inp(x)
        t = lambda z: z.view(z.shape[0], z.shape[1], H, -1).permute(0, 2, 1, 3)
        q, k, v = t(qkv).chunk(3, dim=-1)
        q = q + t(self.qb[None, None, :])
        v = v + t(self.vb[None, None, :])
        sf = 3
        scale = torch.sqrt(torch.tensor(q.size(-1), dtype=torch.float) * sf)
        q = q / scale
        sc = torch.matmul(q, k.transpose(-1, -2))
        pos = torch.arange(N)
        rp = pos[:, None] - pos[None, :]
        rel = self.rel.unsqueeze(0)
        pk = t(self.pp(rel))
        c2p = torch.matmul(q, pk.transpose(-1, -2))
        c2pp = torch.clamp(rp + 16, 0, 31)[None, None]
        c2p = torch.gather(c2p, -1, c2pp.expand([q.size(0), q.size(1), q.size(2), rp.size(-1)]))
        sc = sc + c2p
        pq = t(self.pq(rel))
        pq = pq / torch.sqrt(torch.tensor(pq.size(-1), dtype=torch.float) * sf)
        p2c = torch.matmul(k, pq.transpose(-1, -2))
        p2cp = torch.clamp(-rp + 16, 0, 31)[None, None]
        p2c = torch.gather(p2c, -1, p2cp.expand([q.size(0), q.size(1), k.size(-2), k.size(-2)])).transpose(
            -1, -2
        )
        sc = sc + p2c
        rm = ~am.bool()
        a = torch.softmax(sc.masked_fill(rm, torch.finfo(sc.dtype).min), -1).masked_fill(rm, 0)
        c = torch.matmul(a, v).permute(0, 2, 1, 3).contiguous()
        return c.view(c.size()[:-2] + (-1,))


class Funnel(nn.Module):
    """Funnel: pooled queries, positions by a third product."""

    def __init__(self):
        super().__init__()
        self.q = nn.Linear(D, D, bias=False)
        self.k = nn.Linear(D, D)
        self.v = nn.Linear(D, D)
        self.rw = nn.Parameter(torch.randn(H, d))
        self.rr = nn.Parameter(torch.randn(H, d))
        self.rk = nn.Parameter(torch.randn(D, H, d) * 0.2)
        self.o = linear()
        self.register_buffer("pe", torch.randn(16, D))

    def forward(self, x):
        B, N, _ = x.shape
        q = self.q(x[:, ::2]).view(B, -1, H, d)
        k = self.k(x).view(B, N, H, d)
        v = self.v(x).view(B, N, H, d)
        q = q * (1 / d**0.5)
        cs = torch.einsum("bind,bjnd->bnij", q + self.rw * (1 / d**0.5), k)
        rh = torch.einsum("td,dnh->tnh", self.pe[:N], self.rk)
        pos = torch.einsum("binh,tnh->bnit", q + self.rr * (1 / d**0.5), rh)
        a = cs + pos
        a = a.float() - 1000000.0 * (1 - torch.ones(B, N)[:, None, None].float())
        p = torch.softmax(a, -1)
        return self.o(torch.einsum("bnij,bjnd->bind", p, v).reshape(B, N // 2, D))


class FalconMqaAlibi(nn.Module):
    """Falcon: one key head, ALiBi from the mask, softmax of (scores + alibi) * scale + mask."""

    def __init__(self):
        super().__init__()
        self.qkv = linear(D, D + 2 * d)
        self.o = linear()

    def forward(self, x, am):
        B, N, _ = x.shape
        f = self.qkv(x).view(B, N, H + 2, d)
        q, k, v = (f[..., :-2, :], f[..., [-2], :], f[..., [-1], :])
        q = q.transpose(1, 2).reshape(B * H, N, d)
        k = k.transpose(1, 2).reshape(B, N, d)
        v = v.transpose(1, 2).reshape(B, N, d)
        ql = q.reshape(B, H, -1, d)
        kl = k.reshape(B, 1, -1, d)
        vl = v.reshape(B, 1, -1, d)
        slopes = torch.tensor([2 ** (-2 * (i + 1)) for i in range(H)])
        at = ((am.cumsum(-1) - 1) * am)[:, None, :]
        alibi = (slopes[..., None].bfloat16().float() * at).reshape(B, H, 1, -1)
        sc = ql @ kl.transpose(-1, -2)
        causal = (
            torch.triu(torch.ones(N, N), 1)[None, None] * -1000000000.0
            + (1 - am[:, None, None].float()) * -1000000000.0
        )
        p = F.softmax((sc.view(B, H, N, -1) + alibi) * (1 / math.sqrt(d)) + causal, -1, dtype=torch.float32)
        p = p.view(B, H, N, N)
        o = (p @ vl).view(B, H, N, d).permute(0, 2, 1, 3).reshape(B, N, H * d)
        return self.o(o)


class GptbigcodeMqa(nn.Module):
    """GPT-BigCode: heads and positions of the queries merged, a boolean mask."""

    def __init__(self):
        super().__init__()
        self.c = linear(D, D + 2 * d)
        self.o = linear()

    def forward(self, x, m):
        q, kv = self.c(x).split((D, 2 * d), dim=2)
        k, v = kv.split((d, d), dim=-1)
        k = k.transpose(-1, -2)
        B, N, _ = x.shape
        q = q.reshape(B, N * H, d)
        sc = torch.baddbmm(torch.zeros(B, N * H, N), q, k, beta=0, alpha=d ** (-0.5)).view(B, N, H, N)
        sc = torch.where(m.transpose(1, 2), sc, torch.full([], -3.4e38))
        a = F.softmax(sc, -1)
        return self.o(torch.bmm(a.view(B, N * H, N), v).view(B, N, D))


class Codegen(nn.Module):
    """CodeGen: interleaved blocks, a buffer of the causal mask."""

    def __init__(self):
        super().__init__()
        self.qkv = linear(D, 3 * D, False)
        self.o = linear()
        self.register_buffer("cm", torch.tril(torch.ones(64, 64, dtype=torch.bool)).view(1, 1, 64, 64))

    def forward(self, x, am):
        B, N, _ = x.shape
        t = self.qkv(x).reshape(B, N, 2, -1)
        q, v, k = torch.split(t, D // 2, dim=-1)
        sp = lambda z: z.reshape(z.shape[:-1] + (H // 2, d)).reshape(z.shape[:-2] + (-1,) + (d,))
        q, k = (sp(q), sp(k))
        v = sp(v).permute(0, 2, 1, 3)
        k = k.permute(0, 2, 1, 3)
        q = q.permute(0, 2, 1, 3)
        w = torch.matmul(q.float(), k.float().transpose(-1, -2))
        w = w / torch.sqrt(torch.tensor(d, dtype=torch.float32))
        cm = self.cm[:, :, N - N : N, :N]
        w = torch.where(cm, w, torch.tensor(torch.finfo(torch.float32).min))
        w = w + (1.0 - am[:, None, None].float()) * torch.finfo(torch.float32).min
        w = nn.Softmax(-1)(w).to(v.dtype)
        o = torch.matmul(w, v).permute(0, 2, 1, 3).contiguous()
        return self.o(o.view(o.size()[:-2] + (D,)))


class StablelmPartialRopeGqa(nn.Module):
    """StableLM: rotary positions on half of the channels, shared key heads."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (linear(), linear(D, D // 2), linear(D, D // 2), linear())

    def forward(self, x):
        B, N, _ = x.shape
        q = self.q(x).view(B, N, H, d).transpose(1, 2)
        k = self.k(x).view(B, N, 2, d).transpose(1, 2)
        v = self.v(x).view(B, N, 2, d).transpose(1, 2)
        r = d // 2
        a, b = rope(q[..., :r], k[..., :r], N)
        q = torch.cat((a, q[..., r:]), -1)
        k = torch.cat((b, k[..., r:]), -1)
        rep = lambda t: t[:, :, None].expand(B, 2, 2, N, d).reshape(B, 4, N, d)
        k, v = (rep(k), rep(v))
        w = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(d)
        w = w + torch.triu(torch.full((N, N), torch.finfo(torch.float32).min), 1)[None, None]
        return self.o(
            (F.softmax(w, -1, dtype=torch.float32).to(q.dtype) @ v).transpose(1, 2).reshape(B, N, D)
        )


class MlaDeepseek(nn.Module):
    """DeepSeek: latent keys and values, one rotary key for all heads, value size of its own."""

    def __init__(self):
        super().__init__()
        self.qa, self.qb = (linear(D, 16), linear(16, H * (d + 4)))
        self.kva = linear(D, 16 + 4)
        self.kvb = linear(16, H * (d + 6))
        self.o = linear(H * 6, D)
        self.n = nn.LayerNorm(16)

    def forward(self, x):
        B, N, _ = x.shape
        q = self.qb(self.qa(x)).view(B, N, H, d + 4).transpose(1, 2)
        qn, qp = torch.split(q, [d, 4], -1)
        c = self.kva(x)
        ckv, kp = torch.split(c, [16, 4], -1)
        kp = kp.view(B, N, 1, 4).transpose(1, 2)
        kv = self.kvb(self.n(ckv)).view(B, N, H, d + 6).transpose(1, 2)
        kn, v = torch.split(kv, [d, 6], -1)
        qp, kp = rope(qp, kp, N)
        kp = kp.expand(-1, H, -1, -1)
        q = torch.cat([qn, qp], -1)
        k = torch.cat([kn, kp], -1)
        w = q @ k.transpose(2, 3) * (d + 4) ** (-0.5)
        w = w + torch.triu(torch.full((N, N), -1000000000.0), 1)
        return self.o((F.softmax(w, -1, dtype=torch.float32) @ v).transpose(1, 2).reshape(B, N, -1))


class ClipTextCausalBuffer(QKV):
    """CLIP text encoder: merged heads, the causal buffer and the padding added one after another."""

    def __init__(self):
        super().__init__()
        self.register_buffer("m", torch.empty(77, 77).fill_(-10000.0).triu_(1))

    def forward(self, x, am):
        B, N, _ = x.shape
        sh = lambda t, n: t.view(B, n, H, d).transpose(1, 2).contiguous()
        q = sh(self.q(x) * d ** (-0.5), N).view(B * H, -1, d)
        k = sh(self.k(x), -1).view(B * H, -1, d)
        v = sh(self.v(x), -1).view(B * H, -1, d)
        w = torch.bmm(q, k.transpose(1, 2))
        w = w.view(B, H, N, N) + self.m[:N, :N][None, None]
        w = w.view(B * H, N, N)
        w = w.view(B, H, N, N) + (1 - am[:, None, None].float()) * -10000.0
        w = w.view(B * H, N, N)
        w = F.softmax(w, -1)
        return self.o(torch.bmm(w, v).view(B, H, N, d).transpose(1, 2).reshape(B, N, D))


class Linformer(QKV):
    """Linformer: keys and values projected along the sequence by linear layers."""

    def __init__(self):
        super().__init__()
        self.e = nn.Linear(16, 6)
        self.f = nn.Linear(16, 6)

    def forward(self, x):
        k = self.e(self.k(x).transpose(1, 2)).transpose(1, 2)
        v = self.f(self.v(x).transpose(1, 2)).transpose(1, 2)
        q, k, v = (heads(self.q(x)), heads(k), heads(v))
        return self.o(merge(F.softmax(q @ k.transpose(-1, -2) / d**0.5, -1) @ v))


class ReformerSharedQk(QKV):
    """Reformer: shared queries and keys, oneself lowered by 1e5, softmax through logsumexp."""

    def forward(self, x):
        q = heads(self.q(x))
        v = heads(self.v(x))
        k = F.normalize(q, dim=-1) * d ** (-0.5)
        N = x.shape[1]
        sc = q @ k.transpose(-1, -2)
        sc = torch.where(torch.eye(N).bool(), torch.tensor(-100000.0), sc)
        sc = torch.where(torch.ones(N, N).tril().bool(), sc, torch.tensor(-1000000000.0))
        lse = torch.logsumexp(sc, -1, keepdim=True)
        return self.o(merge(torch.exp(sc - lse) @ v))


class Tensor2tensorHeadloop(QKV):
    """A loop over heads that are slices of the channels."""

    def forward(self, x):
        q, k, v = (self.q(x), self.k(x), self.v(x))
        o = []
        for i in range(H):
            a = slice(i * d, (i + 1) * d)
            o.append(F.softmax(q[..., a] @ k[..., a].transpose(1, 2) / d**0.5, -1) @ v[..., a])
        return self.o(torch.cat(o, -1))


class BigbirdBandEinsum(QKV):
    """BigBird: scores of several blocks joined for one softmax."""

    def forward(self, x):
        q, k, v = self.qkv(x)
        B = x.shape[0]
        nb, bs = (8, 4)
        bq = q.view(B, H, nb, bs, d)
        bk = k.view(B, H, nb, bs, d)
        bv = v.view(B, H, nb, bs, d)
        first = torch.matmul(bq[:, :, 0], k.transpose(-1, -2)) * d ** (-0.5)
        f = F.softmax(first, -1) @ v
        kk = torch.cat([bk[:, :, 1:-3], bk[:, :, 2:-2], bk[:, :, 3:-1]], 3)
        vv = torch.cat([bv[:, :, 1:-3], bv[:, :, 2:-2], bv[:, :, 3:-1]], 3)
        mq = bq[:, :, 2:-2]
        inner = torch.einsum("bhlqd,bhlkd->bhlqk", mq, kk) * d ** (-0.5)
        fb = torch.einsum("bhlqd,bhkd->bhlqk", mq, bk[:, :, 0]) * d ** (-0.5)
        band = torch.cat([fb, inner], -1)
        w = F.softmax(band, -1)
        c = torch.einsum("bhlqk,bhlkd->bhlqd", w[..., bs:], vv) + torch.einsum(
            "bhlqk,bhkd->bhlqd", w[..., :bs], bv[:, :, 0]
        )
        return (f, c)
