// Products of a matrix and a vector, with SIMD instructions where the browser has them

// Both kinds of product read the matrix in panels of 16 rows, stored column by column.
const PANEL = 16;

// Memory in which both can compute. `floats(n)` allocates n numbers, aligned to 16 bytes.
class Arena {
  constructor(size) {
    const pages = Math.ceil(size / 16384); // of 64 KiB
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.used = 0;
  }
  floats(count) {
    const view = new Float32Array(this.memory.buffer, this.used, count);
    this.used += Math.ceil(count / 4) * 16;
    return view;
  }
}

// The plain product, which specifies what the other one computes: out = bias + panels · x.
function plainProduct(memory) {
  const numbers = new Float32Array(memory.buffer), sums = new Float64Array(PANEL);
  return (weights, x, end, out, outEnd) => {
    for (let at = weights >> 2, row = out >> 2; row < outEnd >> 2; row += PANEL) {
      sums.fill(0);
      for (let column = x >> 2; column < end >> 2; column++)
        for (let k = 0; k < PANEL; k++) sums[k] += numbers[at++] * numbers[column];
      for (let k = 0; k < PANEL; k++) numbers[row + k] += sums[k];
    }
  };
}

// The same as a WebAssembly module: (weights, x, end of x, out, end of out), addresses in bytes. `out` holds the bias.
function simdProduct(memory) {
  const I32 = 0x7f, V128 = 0x7b, LOOP = [0x03, 0x40], END = 0x0b;
  const get = (local) => [0x20, local], set = (local) => [0x21, local], tee = (local) => [0x22, local];
  const load = (offset) => [0xfd, 0x00, 4, offset], store = (offset) => [0xfd, 0x0b, 4, offset];
  const splat = [0xfd, 0x09, 2, 0], multiply = [0xfd, 0xe6, 0x01], add = [0xfd, 0xe4, 0x01]; // f32x4
  const leb = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...leb(n >> 7)]);
  const number = (n) => [0x41, ...(n < 64 ? [n] : [n | 128, 0])], plus = 0x6a, less = 0x49, branchIf = [0x0d, 0];
  const [weights, x, end, out, outEnd, column, factor, sum] = [0, 1, 2, 3, 4, 5, 6, 7];
  const four = [0, 1, 2, 3];
  const advance = (local, bytes) => [get(local), number(bytes), plus];
  const code = [
    LOOP,
    four.map((k) => [get(out), load(16 * k), set(sum + k)]),
    get(x), set(column),
    LOOP,
    get(column), splat, set(factor),
    four.map((k) => [get(sum + k), get(weights), load(16 * k), get(factor), multiply, add, set(sum + k)]),
    advance(weights, 64), set(weights),
    advance(column, 4), tee(column), get(end), less, branchIf,
    END,
    four.map((k) => [get(out), get(sum + k), store(16 * k)]),
    advance(out, 64), tee(out), get(outEnd), less, branchIf,
    END,
    END,
  ].flat(Infinity);
  const name = (text) => [text.length, ...new TextEncoder().encode(text)];
  const section = (id, bytes) => [id, ...leb(bytes.length), ...bytes];
  const body = [2, 1, I32, 5, V128, ...code]; // locals: one i32 and five v128
  const pages = leb(memory.buffer.byteLength / 65536);
  const module = [
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [1, 0x60, 5, I32, I32, I32, I32, I32, 0]),
    ...section(2, [1, ...name("m"), ...name("m"), 2, 1, ...pages, ...pages]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name("f"), 0, 0]),
    ...section(10, [1, ...leb(body.length), ...body]),
  ];
  return new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.from(module)), { m: { m: memory } }).exports.f;
}

// A linear map with a bias. `apply(x)`, where x is in the arena, returns a vector that the next call overwrites.
class Linear {
  constructor(arena, product, weight, bias, rows, columns) {
    this.product = product;
    const padded = Math.ceil(rows / PANEL) * PANEL;
    this.panels = arena.floats(padded * columns);
    for (let row = 0; row < rows; row++) {
      let at = (row - (row % PANEL)) * columns + (row % PANEL);
      for (let column = 0; column < columns; column++, at += PANEL) this.panels[at] = weight[row * columns + column];
    }
    this.padded = arena.floats(padded);
    this.out = this.padded.subarray(0, rows);
    this.bias = bias;
  }
  static size(rows, columns) {
    return Math.ceil(rows / PANEL) * PANEL * (columns + 1);
  }
  apply(x) {
    if (this.bias) this.out.set(this.bias);
    else this.out.fill(0);
    const { panels, padded } = this, end = (view) => view.byteOffset + view.byteLength;
    this.product(panels.byteOffset, x.byteOffset, end(x), padded.byteOffset, end(padded));
    return this.out;
  }
}
