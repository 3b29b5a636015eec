// The kernels of a generation step on a GPU; gpu_kernels.py compiles and launches them.
//
// A step is a few products of matrices, and many small operations in between. As operations of torch, each of
// these is a kernel of its own, which takes longer to start than to run. Here, all those between two products are
// one kernel. Each computes what the functions named in its comment compute, which are its specification.
//
// A row is a sequence. Rows are computed by blocks of threads that know nothing of each other, so the results of
// a row do not depend on the others. All matrices are stored row by row, without gaps.
//
// `number` is the type of the operands of products: float, or with -DBF16 or -DFP16 a float of 16 bits.

#if defined(BF16)
typedef unsigned short number;

__device__ float loaded(number x) { return __uint_as_float((unsigned)x << 16); }

__device__ number rounded(float x) {
  unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;  // not a number
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;      // to the nearest, ties to even
}
#elif defined(FP16)
typedef unsigned short number;

__device__ float loaded(number x) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x));
  return result;
}

__device__ number rounded(float x) {
  number result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(x));
  return result;
}
#else
typedef float number;

__device__ float loaded(number x) { return x; }
__device__ number rounded(float x) { return x; }
#endif

typedef long long integer;  // torch.long

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

__device__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }

// The input of the first layer's product: the embedding of each row's token, and beside it the hidden state.
//
// embedding (vocab, width), tokens (rows,), h (rows, hidden) -> joined (rows, width + hidden). One block per row.
extern "C" __global__ void join(
    const number* embedding, const integer* tokens, const float* h, number* joined, int width, int hidden) {
  integer row = blockIdx.x;
  const number* vector = embedding + tokens[row] * width;
  for (int i = threadIdx.x; i < width + hidden; i += blockDim.x)
    joined[row * (width + hidden) + i] = i < width ? vector[i] : rounded(h[row * hidden + i - width]);
}

// The new state of a layer (`advance` in lm/model/cell_step.py), and the input of the next layer's product.
//
// products (rows, columns * hidden) and bias (columns * hidden,) have a column for each gate, in the order of
// `group_gates`; that of a GRU is followed by the input's contribution to the candidate. h and, for an LSTM, c
// (rows, hidden) are updated. The output y of the layer is the new h, plus the layer's input x with a residual
// connection: x (rows, stride) or null. With next_h (rows, hidden), the state of the next layer, `joined` (rows,
// 2 * hidden) has it beside y, otherwise joined (rows, hidden) is y. One thread per unit: blocks (rows, parts).
extern "C" __global__ void advance(
    const number* products, const number* bias, float* h, float* c, const number* x, int stride,
    const float* next_h, number* joined, int columns, int hidden) {
  integer row = blockIdx.x;
  int unit = blockIdx.y * blockDim.x + threadIdx.x;
  if (unit >= hidden) return;
  float gates[4];
  for (int i = 0; i < columns; i++)
    gates[i] = loaded(products[(row * columns + i) * hidden + unit]) + loaded(bias[i * hidden + unit]);
  integer at = row * hidden + unit;
  float value;
  if (columns == 1) {  // RNN
    value = tanhf(gates[0]);
  } else if (c) {  // LSTM: i, f, o, g
    c[at] = sigmoid(gates[1]) * c[at] + sigmoid(gates[0]) * tanhf(gates[3]);
    value = sigmoid(gates[2]) * tanhf(c[at]);
  } else {  // GRU: r, z, n of the state, n of the input
    float n = tanhf(sigmoid(gates[0]) * gates[2] + gates[3]);
    value = n + sigmoid(gates[1]) * (h[at] - n);
  }
  h[at] = value;
  number y = rounded(value);
  if (x) y = rounded(loaded(y) + loaded(x[row * stride + unit]));
  joined[row * (next_h ? 2 * hidden : hidden) + unit] = y;
  if (next_h) joined[row * 2 * hidden + hidden + unit] = rounded(next_h[at]);
}

// The settings of the sampler, each (rows,), or null if no row uses it: `SamplingTensors` in samplers.py.
struct Settings {
  const bool* greedy;
  const float* temperature;
  const integer* top_k;
  const float *typical_p, *top_p, *min_p, *repetition_penalty, *presence_penalty, *frequency_penalty;
};

// The tokens to which penalties apply: `Window` in gpu_tables.py.
struct Window {
  float* counts;  // (rows, vocab + 1)
  integer *ring, *next;
  const integer* sizes;
};

#define MOST 1024  // threads of a block, and token types

__device__ float largest(const float* values, int count) {
  float result = values[0];
  for (int i = 1; i < count; i++) result = fmaxf(result, values[i]);
  return result;
}

__device__ float sum(const float* values, int count) {
  float result = 0;
  for (int i = 0; i < count; i++) result += values[i];
  return result;
}

// The sum of the weights of all values that come before that of this thread, in an order in which larger values
// come first, and of equal ones the first.
__device__ float sum_before(const float* weights, const float* values, int count) {
  int own = threadIdx.x;
  float result = 0;
  for (int i = 0; i < count; i++)
    if (values[i] > values[own] || (values[i] == values[own] && i < own)) result += weights[i];
  return result;
}

// The logarithm of the softmax of `value`, one per thread; `scratch` then has the softmax.
__device__ float log_softmax(float value, float* scratch, int count) {
  __syncthreads();
  scratch[threadIdx.x] = value;
  __syncthreads();
  float highest = largest(scratch, count);
  __syncthreads();
  scratch[threadIdx.x] = expf(value - highest);
  __syncthreads();
  float total = sum(scratch, count);
  __syncthreads();
  scratch[threadIdx.x] /= total;
  __syncthreads();
  return value - highest - logf(total);
}

// Draw a token for each row: `draw_with_torch` in gpu_draw.py.
//
// logits (rows, vocab), suppressed (vocab,). Random numbers and, unless null, temperatures are in tables (steps,
// rows), from which the row `*step` is read; tokens and log-probabilities are written to that row of other tables.
// `last` (rows,) and the window get the new tokens, too. One block per row, one thread per token type.
extern "C" __global__ void __launch_bounds__(MOST) draw(
    const float* logits, const float* suppressed, const double* uniforms, const float* temperatures,
    Settings settings, Window window, const integer* step, integer* last, integer* tokens, float* logprobs,
    int vocab) {
  __shared__ float allowed_of[MOST], scratch[MOST], distances[MOST];
  __shared__ double weights[MOST];
  __shared__ int drawn;
  integer row = blockIdx.x, entry = *step * gridDim.x + row;
  int own = threadIdx.x;
  bool exists = own < vocab;

  float logit = exists ? logits[row * vocab + own] : -INFINITY;
  float logprob = log_softmax(logit, scratch, vocab);

  float penalized = logit;
  if (window.counts && exists) {
    float count = window.counts[row * (vocab + 1) + own];
    if (settings.repetition_penalty && count > 0)
      penalized = penalized > 0 ? penalized / settings.repetition_penalty[row]
                                : penalized * settings.repetition_penalty[row];
    if (settings.presence_penalty && count > 0) penalized -= settings.presence_penalty[row];
    if (settings.frequency_penalty) penalized -= settings.frequency_penalty[row] * count;
  }
  float temperature = temperatures ? temperatures[entry] : settings.temperature[row];
  float allowed = exists ? suppressed[own] + penalized / temperature : -INFINITY;
  allowed_of[own] = allowed;
  __syncthreads();

  float kept = allowed;
  if (settings.top_k) {
    int larger = 0;
    for (int i = 0; i < vocab; i++) larger += allowed_of[i] > allowed;
    if (larger >= settings.top_k[row]) kept = -INFINITY;
  }
  if (settings.typical_p) {
    float information = log_softmax(kept, scratch, vocab);
    distances[own] = scratch[own] > 0 ? scratch[own] * information : 0;
    __syncthreads();
    float entropy = -sum(distances, vocab);
    __syncthreads();
    distances[own] = -fabsf(information + entropy);
    __syncthreads();
    float p = settings.typical_p[row];
    if (p < 1 && sum_before(scratch, distances, vocab) >= p) kept = -INFINITY;
  }
  if (settings.top_p) {
    log_softmax(kept, scratch, vocab);
    float p = settings.top_p[row];
    if (p < 1 && sum_before(scratch, allowed_of, vocab) >= p) kept = -INFINITY;
  }
  __syncthreads();
  scratch[own] = kept;
  if (own == 0) drawn = 0;
  __syncthreads();
  float highest = largest(scratch, vocab);
  if (settings.min_p && kept < highest + logf(settings.min_p[row])) kept = -INFINITY;

  weights[own] = exp((double)kept - highest);
  __syncthreads();
  double total = 0, up_to_own = 0;
  for (int i = 0; i < vocab; i++) {
    total += weights[i];
    if (i == own) up_to_own = total;
  }
  // The number of the first token at which the sum exceeds the random number.
  if (own < vocab - 1 && up_to_own <= uniforms[entry] * total) atomicAdd(&drawn, 1);
  __syncthreads();
  if (settings.greedy && settings.greedy[row]) {
    bool is_best = exists;
    for (int i = 0; i < vocab; i++)
      is_best &= !(allowed_of[i] > allowed || (allowed_of[i] == allowed && i < own));
    if (is_best) drawn = own;
  }
  __syncthreads();

  if (own == drawn) logprobs[entry] = logprob;
  if (own) return;
  last[row] = tokens[entry] = drawn;
  if (window.counts) {
    integer* oldest = window.ring + window.next[row] * gridDim.x + row;
    window.counts[row * (vocab + 1) + *oldest] -= 1;
    window.counts[row * (vocab + 1) + drawn] += 1;
    *oldest = drawn;
    window.next[row] = (window.next[row] + 1) % window.sizes[row];
  }
}
