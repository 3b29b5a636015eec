"""One recurrent layer on a CPU, forward and backward, with few and large matrix products.

Autograd through a loop of cells, which is also what torch's GRU and RNN on a CPU are, computes a product
for the gradient of the weights at every step. Here the gradients of the equations are written out:

- The contribution of the inputs to the gates is one product for all steps, before the loop.
- The loop computes the one product that depends on the previous step and the cell's arithmetic, in place,
  with the recurrent matrix packed once for the matrix library.
- The gradients of both matrices are one product each, after the backward loop.

Names are those of the equations in lm/model/cells.py: x (time, batch, input), h and c (batch, hidden).
A prefix d_ means the gradient of the loss with respect to what follows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lm.model import onednn
from lm.model.cells import State, split_gates

_sigmoid_grad = torch.ops.aten.sigmoid_backward.grad_input
_tanh_grad = torch.ops.aten.tanh_backward.grad_input


def cpu_layer(cell: str, x: Tensor, state: State, weights: list[Tensor]) -> tuple[Tensor, State]:
    """x (time, batch, input), state, weights [w_ih, w_hh, b_ih, b_hh] -> hidden states (time, batch, hidden),
    final state. Under autocast everything is computed in its precision."""
    dtype = product_dtype(x)
    x, state = x.to(dtype), tuple(part.to(dtype) for part in state)
    weights = [weight.to(dtype) for weight in weights]
    with torch.autocast(x.device.type, enabled=False):
        outputs, *final = _FUNCTIONS[cell].apply(x, *weights, *state)
    return outputs, tuple(final)


class _RNN(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, h: Tensor
    ) -> tuple[Tensor, ...]:
        gates = F.linear(x, w_ih, b_ih + b_hh)
        hs = _states(h, len(x))
        times_w = onednn.linear(w_hh, None, len(h))
        for x_t, before, h_t in zip(gates.unbind(), hs[:-1].unbind(), hs[1:].unbind(), strict=True):
            torch.add(x_t, times_w(before), out=h_t).tanh_()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w_ih, w_hh, hs)
        return hs[1:], hs[-1].clone()

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_h: Tensor | None) -> tuple[Tensor, ...]:
        x, w_ih, w_hh, hs = ctx.saved_tensors
        d_gates = torch.empty_like(hs[1:])
        times_w = onednn.linear(w_hh.t().contiguous(), None, hs.shape[1])
        d_h, d_outs = _output_gradients(d_out, d_h, hs)
        after, d_gate = hs[1:].unbind(), d_gates.unbind()
        for t in reversed(range(len(x))):
            _tanh_grad(d_h, after[t], grad_input=d_gate[t])
            d_h = times_w(d_gate[t])
            if t > 0:
                d_h.add_(d_outs[t - 1])
        return *_weight_gradients(x, w_ih, hs, d_gates), d_h


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, h: Tensor
    ) -> tuple[Tensor, ...]:
        hidden = len(w_hh) // 3
        bias = b_ih.clone()
        bias[: 2 * hidden] += b_hh[: 2 * hidden]
        gates = F.linear(x, w_ih, bias)
        hs = _states(h, len(x))
        hns = torch.empty_like(hs[1:])  # W_hn h
        b_hn = b_hh[2 * hidden :]
        times_w = onednn.linear(w_hh, None, len(h))
        rz = gates[:, :, : 2 * hidden].unbind()  # both are sigmoids
        r, z, n = _steps("gru", gates, "rzn")
        before, after, hn = hs[:-1].unbind(), hs[1:].unbind(), hns.unbind()
        for t in range(len(x)):
            from_h = times_w(before[t])
            rz[t].add_(from_h[:, : 2 * hidden]).sigmoid_()
            torch.add(from_h[:, 2 * hidden :], b_hn, out=hn[t])
            n[t].addcmul_(r[t], hn[t]).tanh_()
            torch.lerp(n[t], before[t], z[t], out=after[t])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w_ih, w_hh, hs, gates, hns)
        return hs[1:], hs[-1].clone()

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_h: Tensor | None) -> tuple[Tensor, ...]:
        x, w_ih, w_hh, hs, gates, hns = ctx.saved_tensors
        hidden = hs.shape[2]
        # The gradient of the candidate reaches W_xn as it is, and W_hn multiplied by r.
        d_from_h, d_ns = torch.empty_like(gates), torch.empty_like(hns)
        times_w = onednn.linear(w_hh.t().contiguous(), None, hs.shape[1])
        d_h, d_outs = _output_gradients(d_out, d_h, hs)
        rz, d_rz = (pair[:, :, : 2 * hidden].unbind() for pair in (gates, d_from_h))
        r, z, n = _steps("gru", gates, "rzn")
        d_r, d_z, d_hn = _steps("gru", d_from_h, "rzn")
        before, hn, d_n, d_gates = hs[:-1].unbind(), hns.unbind(), d_ns.unbind(), d_from_h.unbind()
        difference = torch.empty_like(d_h)
        for t in reversed(range(len(x))):
            kept = d_h * z[t]
            _tanh_grad(torch.sub(d_h, kept, out=d_n[t]), n[t], grad_input=d_n[t])
            torch.sub(before[t], n[t], out=difference)
            torch.mul(d_h, difference, out=d_z[t])
            torch.mul(d_n[t], hn[t], out=d_r[t])
            _sigmoid_grad(d_rz[t], rz[t], grad_input=d_rz[t])
            torch.mul(d_n[t], r[t], out=d_hn[t])
            d_h = times_w(d_gates[t]).add_(kept)
            if t > 0:
                d_h.add_(d_outs[t - 1])
        return *_weight_gradients(x, w_ih, hs, d_from_h, d_ns), d_h


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, ...]:
        hidden = len(w_hh) // 4
        gates = F.linear(x, w_ih, b_ih + b_hh)
        hs, cs = _states(h, len(x)), _states(c, len(x))
        tanh_cs = torch.empty_like(cs[1:])
        times_w = onednn.linear(w_hh, None, len(h))
        all_gates, i_f = gates.unbind(), gates[:, :, : 2 * hidden].unbind()
        i, f, g, o = _steps("lstm", gates, "ifgo")
        h_before, h_after = hs[:-1].unbind(), hs[1:].unbind()
        c_before, c_after, tanh_c = cs[:-1].unbind(), cs[1:].unbind(), tanh_cs.unbind()
        for t in range(len(x)):
            all_gates[t].add_(times_w(h_before[t]))
            i_f[t].sigmoid_(), o[t].sigmoid_(), g[t].tanh_()
            torch.mul(f[t], c_before[t], out=c_after[t]).addcmul_(i[t], g[t])
            torch.tanh(c_after[t], out=tanh_c[t])
            torch.mul(o[t], tanh_c[t], out=h_after[t])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w_ih, w_hh, hs, cs, gates, tanh_cs)
        return hs[1:], hs[-1].clone(), cs[-1].clone()

    @staticmethod
    def backward(
        ctx: Any, d_out: Tensor | None, d_h: Tensor | None, d_c: Tensor | None
    ) -> tuple[Tensor, ...]:
        x, w_ih, w_hh, hs, cs, gates, tanh_cs = ctx.saved_tensors
        hidden = hs.shape[2]
        d_all = torch.empty_like(gates)
        times_w = onednn.linear(w_hh.t().contiguous(), None, hs.shape[1])
        d_h, d_outs = _output_gradients(d_out, d_h, hs)
        d_c = torch.zeros_like(cs[0]) if d_c is None else d_c.clone()
        i_f, d_i_f = (pair[:, :, : 2 * hidden].unbind() for pair in (gates, d_all))
        i, f, g, o = _steps("lstm", gates, "ifgo")
        d_i, d_f, d_g, d_o = _steps("lstm", d_all, "ifgo")
        c_before, tanh_c, d_gates = cs[:-1].unbind(), tanh_cs.unbind(), d_all.unbind()
        through_o = torch.empty_like(d_c)
        for t in reversed(range(len(x))):
            torch.mul(d_h, o[t], out=through_o)
            d_c.add_(_tanh_grad(through_o, tanh_c[t], grad_input=through_o))
            torch.mul(d_c, g[t], out=d_i[t])
            torch.mul(d_c, c_before[t], out=d_f[t])
            _sigmoid_grad(d_i_f[t], i_f[t], grad_input=d_i_f[t])
            torch.mul(d_c, i[t], out=d_g[t])
            _tanh_grad(d_g[t], g[t], grad_input=d_g[t])
            torch.mul(d_h, tanh_c[t], out=d_o[t])
            _sigmoid_grad(d_o[t], o[t], grad_input=d_o[t])
            d_c.mul_(f[t])
            d_h = times_w(d_gates[t])
            if t > 0:
                d_h.add_(d_outs[t - 1])
        return *_weight_gradients(x, w_ih, hs, d_all), d_h, d_c


_FUNCTIONS = {"rnn": _RNN, "gru": _GRU, "lstm": _LSTM}


def _steps(cell: str, gates: Tensor, names: str) -> list[tuple[Tensor, ...]]:
    """gates (time, batch, gates * hidden) -> for each named gate its (batch, hidden) at every step."""
    blocks = split_gates(cell, gates)
    return [blocks[name].unbind() for name in names]


def _states(first: Tensor, steps: int) -> Tensor:
    """A buffer for the state `first` (batch, hidden) and the `steps` states after it."""
    states = first.new_empty(steps + 1, *first.shape)
    states[0] = first
    return states


def _output_gradients(
    d_out: Tensor | None, d_h: Tensor | None, hs: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The gradient of the last hidden state, and of all outputs (batch, hidden) step by step."""
    if d_out is None:
        d_out = torch.zeros_like(hs[1:])
    return d_out[-1] if d_h is None else d_out[-1] + d_h, d_out.unbind()


def _weight_gradients(
    x: Tensor, w_ih: Tensor, hs: Tensor, d_gates: Tensor, d_candidate: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The gradients of x, w_ih, w_hh, b_ih and b_hh from those of the gates. `d_candidate` is what the last
    gate sends to the input's map, if that differs from what it sends to the recurrent one."""
    flat = d_gates.flatten(0, 1)
    d_w_hh, d_b_hh = flat.t() @ hs[:-1].flatten(0, 1), flat.sum(dim=0)
    d_b_ih = d_b_hh.clone()
    if d_candidate is not None:  # in place: allocating another buffer of this size costs time
        last = slice(-d_candidate.shape[2], None)
        d_gates[:, :, last] = d_candidate
        d_b_ih[last] = d_candidate.sum(dim=(0, 1))
    return d_gates @ w_ih, flat.t() @ x.flatten(0, 1), d_w_hh, d_b_ih, d_b_hh


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype of matrix products with x: that of autocast if it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
