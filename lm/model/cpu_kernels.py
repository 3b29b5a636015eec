"""One recurrent layer on a CPU, forward and backward, as few large matrix products as there can be.

Autograd over a loop of cells, and torch's own GRU and RNN on a CPU, which are such a loop, make a
product for the weights' gradient at every step. Here the equations' gradients are written out:

- what the inputs contribute to the gates is one product for all steps, before the loop;
- the loop does the one product that has to wait for the step before, and the cell's arithmetic,
  in place, with the recurrent matrix packed once for the matrix library;
- the gradients of both matrices are one product each, after the backward loop.

The names are those of the equations in lm/model/cells.py. x (time, batch, input), h and c (batch, hidden).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lm.model.cells import State

_sigmoid_grad = torch.ops.aten.sigmoid_backward.grad_input
_tanh_grad = torch.ops.aten.tanh_backward.grad_input


def cpu_layer(cell: str, x: Tensor, state: State, weights: list[Tensor]) -> tuple[Tensor, State]:
    """x (time, batch, input), state and torch's four weights -> hidden states (time, batch,
    hidden), state after the last step. Under autocast all of it is computed in its precision."""
    dtype = product_dtype(x)
    x, state = x.to(dtype), tuple(part.to(dtype) for part in state)
    weights = [weight.to(dtype) for weight in weights]
    with torch.autocast(x.device.type, enabled=False):
        outputs, *final = _FUNCTIONS[cell].apply(x, *weights, *state)
    return outputs, tuple(final)


class _RNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, h: Tensor):
        gates = F.linear(x, w_ih, b_ih + b_hh)
        hs = _after(h, len(x))
        times_w = _packed(w_hh, len(h))
        for x_t, before, h_t in zip(gates.unbind(), hs[:-1].unbind(), hs[1:].unbind(), strict=True):
            torch.add(x_t, times_w(before), out=h_t).tanh_()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w_ih, w_hh, hs)
        return hs[1:], hs[-1].clone()

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_h: Tensor | None):
        x, w_ih, w_hh, hs = ctx.saved_tensors
        d_gates = torch.empty_like(hs[1:])
        times_w = _packed(w_hh.t().contiguous(), hs.shape[1])
        d_h, d_outs = _arriving(d_out, d_h, hs)
        steps = zip(hs[1:].unbind(), d_gates.unbind(), d_outs, strict=True)
        for h, d_gate, d_before in reversed(list(steps)):
            _tanh_grad(d_h, h, grad_input=d_gate)
            d_h = times_w(d_gate)
            if d_before is not None:
                d_h.add_(d_before)
        return *_to_weights(x, w_ih, hs, d_gates), d_h


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, h: Tensor):
        hidden = len(w_hh) // 3
        bias = b_ih.clone()
        bias[: 2 * hidden] += b_hh[: 2 * hidden]
        gates = F.linear(x, w_ih, bias)
        hs = _after(h, len(x))
        hns = torch.empty_like(hs[1:])  # W_hn h
        b_hn = b_hh[2 * hidden :]
        times_w = _packed(w_hh, len(h))
        rzs = gates[:, :, : 2 * hidden].unbind()
        r, _, n = (gate.unbind() for gate in gates.split(hidden, dim=2))
        z = gates[:, :, hidden : 2 * hidden].unbind()
        before, after, hn = hs[:-1].unbind(), hs[1:].unbind(), hns.unbind()
        for t in range(len(x)):
            from_h = times_w(before[t])
            rzs[t].add_(from_h[:, : 2 * hidden]).sigmoid_()
            torch.add(from_h[:, 2 * hidden :], b_hn, out=hn[t])
            n[t].addcmul_(r[t], hn[t]).tanh_()
            torch.lerp(n[t], before[t], z[t], out=after[t])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w_ih, w_hh, hs, gates, hns)
        return hs[1:], hs[-1].clone()

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_h: Tensor | None):
        x, w_ih, w_hh, hs, gates, hns = ctx.saved_tensors
        hidden = hs.shape[2]
        # The proposal's gradient is one thing for the input's map and another, r times it, for W_hn.
        d_from_h, d_ns = torch.empty_like(gates), torch.empty_like(hns)
        times_w = _packed(w_hh.t().contiguous(), hs.shape[1])
        d_h, d_outs = _arriving(d_out, d_h, hs)
        rzs, d_rzs = (both[:, :, : 2 * hidden].unbind() for both in (gates, d_from_h))
        r, z, n = (gate.unbind() for gate in gates.split(hidden, dim=2))
        d_r, d_z, d_hn = (gate.unbind() for gate in d_from_h.split(hidden, dim=2))
        before, hn, d_n, d_gates = hs[:-1].unbind(), hns.unbind(), d_ns.unbind(), d_from_h.unbind()
        difference = torch.empty_like(d_h)
        for t in reversed(range(len(x))):
            kept = d_h * z[t]
            _tanh_grad(torch.sub(d_h, kept, out=d_n[t]), n[t], grad_input=d_n[t])
            torch.sub(before[t], n[t], out=difference)
            torch.mul(d_h, difference, out=d_z[t])
            torch.mul(d_n[t], hn[t], out=d_r[t])
            _sigmoid_grad(d_rzs[t], rzs[t], grad_input=d_rzs[t])
            torch.mul(d_n[t], r[t], out=d_hn[t])
            d_h = times_w(d_gates[t]).add_(kept)
            if d_outs[t] is not None:
                d_h.add_(d_outs[t])
        return *_to_weights(x, w_ih, hs, d_from_h, d_ns), d_h


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, h: Tensor, c: Tensor
    ):
        hidden = len(w_hh) // 4
        gates = F.linear(x, w_ih, b_ih + b_hh)
        hs, cs = _after(h, len(x)), _after(c, len(x))
        tanh_cs = torch.empty_like(cs[1:])
        times_w = _packed(w_hh, len(h))
        all_gates, ifs = gates.unbind(), gates[:, :, : 2 * hidden].unbind()
        i, f, g, o = (gate.unbind() for gate in gates.split(hidden, dim=2))
        h_before, h_after = hs[:-1].unbind(), hs[1:].unbind()
        c_before, c_after, tanh_c = cs[:-1].unbind(), cs[1:].unbind(), tanh_cs.unbind()
        for t in range(len(x)):
            all_gates[t].add_(times_w(h_before[t]))
            ifs[t].sigmoid_(), o[t].sigmoid_(), g[t].tanh_()
            torch.mul(f[t], c_before[t], out=c_after[t]).addcmul_(i[t], g[t])
            torch.tanh(c_after[t], out=tanh_c[t])
            torch.mul(o[t], tanh_c[t], out=h_after[t])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w_ih, w_hh, hs, cs, gates, tanh_cs)
        return hs[1:], hs[-1].clone(), cs[-1].clone()

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, d_h: Tensor | None, d_c: Tensor | None):
        x, w_ih, w_hh, hs, cs, gates, tanh_cs = ctx.saved_tensors
        hidden = hs.shape[2]
        d_all = torch.empty_like(gates)
        times_w = _packed(w_hh.t().contiguous(), hs.shape[1])
        d_h, d_outs = _arriving(d_out, d_h, hs)
        d_c = torch.zeros_like(cs[0]) if d_c is None else d_c.clone()
        ifs, d_ifs = (both[:, :, : 2 * hidden].unbind() for both in (gates, d_all))
        i, f, g, o = (gate.unbind() for gate in gates.split(hidden, dim=2))
        d_i, d_f, d_g, d_o = (gate.unbind() for gate in d_all.split(hidden, dim=2))
        c_before, tanh_c, d_gates = cs[:-1].unbind(), tanh_cs.unbind(), d_all.unbind()
        through_o = torch.empty_like(d_c)
        for t in reversed(range(len(x))):
            torch.mul(d_h, o[t], out=through_o)
            d_c.add_(_tanh_grad(through_o, tanh_c[t], grad_input=through_o))
            torch.mul(d_c, g[t], out=d_i[t])
            torch.mul(d_c, c_before[t], out=d_f[t])
            _sigmoid_grad(d_ifs[t], ifs[t], grad_input=d_ifs[t])
            torch.mul(d_c, i[t], out=d_g[t])
            _tanh_grad(d_g[t], g[t], grad_input=d_g[t])
            torch.mul(d_h, tanh_c[t], out=d_o[t])
            _sigmoid_grad(d_o[t], o[t], grad_input=d_o[t])
            d_c.mul_(f[t])
            d_h = times_w(d_gates[t])
            if d_outs[t] is not None:
                d_h.add_(d_outs[t])
        return *_to_weights(x, w_ih, hs, d_all), d_h, d_c


_FUNCTIONS = {"rnn": _RNN, "gru": _GRU, "lstm": _LSTM}


def _after(first: Tensor, steps: int) -> Tensor:
    """Room for a state (batch, hidden) and the `steps` states after it."""
    states = first.new_empty(steps + 1, *first.shape)
    states[0] = first
    return states


def _arriving(d_out: Tensor | None, d_h: Tensor | None, hs: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    """The gradient of the last hidden state, and for each step what the loss sends to the hidden
    state before it; nothing to the state that the layer began with."""
    if d_out is None:
        d_out = torch.zeros_like(hs[1:])
    last = d_out[-1] if d_h is None else d_out[-1] + d_h
    return last, [None, *d_out[:-1].unbind()]


def _to_weights(
    x: Tensor, w_ih: Tensor, hs: Tensor, d_gates: Tensor, d_ns: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The gradients of the inputs and of torch's four weights from those of the gates; `d_ns`: what the
    last gate sends to the input's map, where that is not what it sends to the recurrent one."""
    flat = d_gates.flatten(0, 1)
    d_w_hh, d_b_hh = flat.t() @ hs[:-1].flatten(0, 1), flat.sum(dim=0)
    d_b_ih = d_b_hh.clone()
    if d_ns is not None:  # in place: to fetch as much memory as the gates take anew costs time
        last = slice(-d_ns.shape[2], None)
        d_gates[:, :, last] = d_ns
        d_b_ih[last] = d_ns.sum(dim=(0, 1))
    return d_gates @ w_ih, flat.t() @ x.flatten(0, 1), d_w_hh, d_b_ih, d_b_hh


def _packed(weight: Tensor, rows: int) -> Callable[[Tensor], Tensor]:
    """A function that maps h (rows, k) to h @ weight.T for a weight (n, k) that is used many times:
    oneDNN brings it into its own layout once. Those operators serve torch's compiler."""
    if not onednn_multiplies(weight.dtype):
        transposed = weight.t()
        return lambda h: h @ transposed
    ours = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    product = torch.ops.mkldnn._linear_pointwise.default
    return lambda h: product(h, ours, None, "none", [], "")


def product_dtype(x: Tensor) -> torch.dtype:
    """In what products with x are computed: autocast's dtype, where that is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def onednn_multiplies(dtype: torch.dtype) -> bool:
    """Whether oneDNN has kernels for it on this CPU: bfloat16 wants AVX-512."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
