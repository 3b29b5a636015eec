// The network, one token at a time: embedding -> recurrent layers -> decoder

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const tanh = (x) => 2 / (1 + Math.exp(-2 * x)) - 1;

// The equations of lm/model/cells.py. Each updates the state of a layer from the contributions of its input and of its
// hidden state to the gates.
const CELLS = {
  rnn(input, hidden, { h }) {
    for (let k = 0; k < h.length; k++) h[k] = tanh(input[k] + hidden[k]);
  },
  gru(input, hidden, { h }) {
    const n = h.length;
    for (let k = 0; k < n; k++) {
      const r = sigmoid(input[k] + hidden[k]), z = sigmoid(input[n + k] + hidden[n + k]);
      const candidate = tanh(input[2 * n + k] + r * hidden[2 * n + k]);
      h[k] = (1 - z) * candidate + z * h[k];
    }
  },
  lstm(input, hidden, { h, c }) {
    const n = h.length, gate = (number, k) => input[number * n + k] + hidden[number * n + k];
    for (let k = 0; k < n; k++) {
      c[k] = sigmoid(gate(1, k)) * c[k] + sigmoid(gate(0, k)) * tanh(gate(2, k));
      h[k] = sigmoid(gate(3, k)) * tanh(c[k]);
    }
  },
};
const GATES = { rnn: 1, gru: 3, lstm: 4 };
const CACHED = 1 << 23; // numbers

class Network {
  // `tensors`: name -> Float32Array. `simd`: whether to use it where the browser has it.
  constructor(config, tensors, simd = true) {
    const { cell, hidden_size: hidden, embedding_size: width, layers, vocab_size: vocab, tie } = config;
    const rows = GATES[cell] * hidden, projected = "projection.weight" in tensors;
    const decoderWidth = tie ? width : hidden;
    const size = width + layers * (Linear.size(rows, hidden) * 2 + hidden * 3) + Linear.size(rows, width)
      + Linear.size(width, hidden) + Linear.size(vocab, decoderWidth);
    const arena = new Arena(size + 64 * (layers + 4));
    let product = plainProduct(arena.memory);
    this.simd = false;
    if (simd)
      try {
        product = simdProduct(arena.memory);
        this.simd = true;
      } catch {} // an old browser: the plain product
    const linear = (weight, bias, rows, columns) => new Linear(arena, product, weight, bias, rows, columns);
    this.config = config;
    this.embedding = tensors["embedding.weight"];
    this.embedded = arena.floats(width);
    this.layers = Array.from({ length: layers }, (_, layer) => {
      const named = (part) => tensors[`recurrent.${part}_l${layer}`];
      return {
        input: linear(named("weight_ih"), named("bias_ih"), rows, layer ? hidden : width),
        hidden: linear(named("weight_hh"), named("bias_hh"), rows, hidden),
        h: arena.floats(hidden), c: arena.floats(hidden), out: arena.floats(hidden),
      };
    });
    this.projection = projected ? linear(tensors["projection.weight"], null, width, hidden) : null;
    this.decoder = linear(tie ? this.embedding : tensors["decoder.weight"], tensors["decoder.bias"], vocab, decoderWidth);
    this.cache = new Map(); // token -> its contribution to the gates of the first layer
  }
  reset() {
    for (const { h, c } of this.layers) {
      h.fill(0);
      c.fill(0);
    }
  }
  // Read a token; the logits of the next one, which the next call overwrites.
  step(token) {
    const { cell, residual } = this.config;
    let x = null;
    for (const layer of this.layers) {
      const input = x ? layer.input.apply(x) : this.contribution(token);
      CELLS[cell](input, layer.hidden.apply(layer.h), layer);
      if (x && residual) {
        for (let k = 0; k < x.length; k++) layer.out[k] = x[k] + layer.h[k];
        x = layer.out;
      } else x = layer.h;
    }
    return this.decoder.apply(this.projection ? this.projection.apply(x) : x);
  }
  contribution(token) {
    let found = this.cache.get(token);
    if (!found) {
      const width = this.embedded.length;
      this.embedded.set(this.embedding.subarray(token * width, (token + 1) * width));
      found = this.layers[0].input.apply(this.embedded).slice();
      if ((this.cache.size + 1) * found.length > CACHED) this.cache.clear();
      this.cache.set(token, found);
    }
    return found;
  }
}

// The tensors in `buffer`, as lm/export/page.py writes them: vectors in float32; matrices in 16 bits, or in 8 bits with
// a scale for each row.
function readTensors(buffer, { precision, tensors }) {
  const numbers = precision === "int8" ? null : Float32Array.from({ length: 65536 }, (_, bits) => from16(bits, precision));
  return Object.fromEntries(tensors.map(({ name, shape, offset }) => {
    const [rows, columns] = shape;
    if (columns === undefined) return [name, new Float32Array(buffer, offset, rows)];
    const values = new Float32Array(rows * columns);
    if (numbers) {
      const halves = new Uint16Array(buffer, offset, values.length);
      for (let k = 0; k < values.length; k++) values[k] = numbers[halves[k]];
    } else {
      const scales = new Float32Array(buffer, offset, rows), bytes = new Int8Array(buffer, offset + 4 * rows, values.length);
      for (let k = 0; k < values.length; k++) values[k] = bytes[k] * scales[Math.floor(k / columns)];
    }
    return [name, values];
  }));
}

function from16(bits, precision) {
  if (precision === "bf16") return new Float32Array(Uint32Array.of(bits << 16).buffer)[0];
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : (fraction / 1024) * 2 ** -14);
}
