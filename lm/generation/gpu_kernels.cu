// The kernels of a generation step on a GPU; gpu_kernels.py compiles and launches them.
//
// A step consists of a few matrix products with many small operations in between. In torch, each operation is a
// kernel of its own, which takes longer to launch than to run. Here, one kernel does everything between two
// products. The comment of each kernel names the Python function that it replaces.
//
// A row is a sequence. Each row is computed by its own blocks of threads, so its results do not depend on the other
// rows. All matrices are stored row by row, without gaps.
//
// `number` is the type of the operands of products: float, or a 16-bit float with -DBF16 or -DFP16. MOST is the
// maximum number of threads in a block of `draw`.

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

// Up to this many token types are sorted by comparing each with all others, more by a search.
const int COMPARED = 512;

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

__device__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }

// The input of the first layer's product: the embedding of each row's token, followed by the hidden state.
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
// `group_gates`; the last column of a GRU is the input's contribution to the candidate. h and, for an LSTM, c
// (rows, hidden) are updated. The layer's output is the new h. With a residual connection, its input x (rows,
// stride) is added; otherwise x is null. If there is a next layer, with the state next_h (rows, hidden), each row of
// `joined` (rows, 2 * hidden) is the output followed by next_h; otherwise next_h is null, and joined (rows, hidden)
// is the output. One thread per unit: blocks (rows, parts).
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

// The tokens to which penalties apply: `Window` in gpu_draw.py.
struct Window {
  float* counts;  // (rows, vocab + 1)
  integer *ring, *next;
  const integer* sizes;
};

// What a token is drawn from: logits (rows, vocab), to which suppressed (vocab,) is added. Random numbers and, unless
// null, temperatures are in tables (steps, rows), from which the row `*step` is read.
struct Source {
  const float *logits, *suppressed;
  const double* uniforms;
  const float* temperatures;
  const integer* step;
};

// Where it is written: to the row `*step` of tables (steps, rows), and to `last` (rows,).
struct Drawn {
  integer *last, *tokens;
  float* logprobs;
};

__device__ integer entry_of(Source source) { return *source.step * gridDim.x + blockIdx.x; }

// The logit of a token with penalties, divided by the temperature.
__device__ float allowed_logit(Source source, Settings settings, Window window, int token, int vocab) {
  integer row = blockIdx.x;
  float logit = source.logits[row * vocab + token];
  if (window.counts) {
    float count = window.counts[row * (vocab + 1) + token];
    if (settings.repetition_penalty && count > 0)
      logit = logit > 0 ? logit / settings.repetition_penalty[row] : logit * settings.repetition_penalty[row];
    if (settings.presence_penalty && count > 0) logit -= settings.presence_penalty[row];
    if (settings.frequency_penalty) logit -= settings.frequency_penalty[row] * count;
  }
  float temperature = source.temperatures ? source.temperatures[entry_of(source)] : settings.temperature[row];
  return source.suppressed[token] + logit / temperature;
}

// Write the token that was drawn. One thread per row calls it.
__device__ void write_token(Source source, Window window, Drawn drawn, int token, float logprob, int vocab) {
  integer row = blockIdx.x, entry = entry_of(source);
  drawn.last[row] = drawn.tokens[entry] = token;
  drawn.logprobs[entry] = logprob;
  if (window.counts) {
    integer* oldest = window.ring + window.next[row] * gridDim.x + row;
    window.counts[row * (vocab + 1) + *oldest] -= 1;
    window.counts[row * (vocab + 1) + token] += 1;
    *oldest = token;
    window.next[row] = (window.next[row] + 1) % window.sizes[row];
  }
}

// Probabilities are added as whole numbers, of which this many make 1: so their sum does not depend on the order.
const integer ONE = 1ll << 40;

__device__ integer whole(float probability) { return llrintf(probability * ONE); }

// Each token type of a row, by the threads in turn, so that neighbors read neighboring numbers.
#define EACH_TOKEN(i) for (int i = threadIdx.x; i < vocab; i += blockDim.x)

// For what depends on the order of the token types, each thread has a range of them.
struct Range {
  int begin, end;
};

__device__ Range own_range(int vocab) {
  int share = (vocab + blockDim.x - 1) / blockDim.x, first = threadIdx.x * share;
  return {min(first, vocab), min(first + share, vocab)};
}

// An integer that sorts like x, and x again.
__device__ unsigned ordered(float x) {
  unsigned bits = __float_as_uint(x + 0.0f);  // not -0
  return bits >> 31 ? ~bits : bits | 0x80000000;
}

__device__ float unordered(unsigned bits) { return __uint_as_float(bits >> 31 ? bits & 0x7fffffff : ~bits); }

// The functions below are used several times. Inlined, they would take twice as long to compile.

// The values of all threads, combined in pairs.
template <typename Combine>
__device__ integer combined(integer value, integer* scratch, Combine combine) {
  int own = threadIdx.x;
  __syncthreads();
  scratch[own] = value;
  for (int half = blockDim.x / 2; half; half /= 2) {
    __syncthreads();
    if (own < half) scratch[own] = combine(scratch[own], scratch[own + half]);
  }
  __syncthreads();
  return scratch[0];
}

__device__ __noinline__ integer sum(integer value, integer* scratch) {
  return combined(value, scratch, [](integer a, integer b) { return a + b; });
}

// Afterwards, scratch[i] is the sum of the values of threads 0 to i.
__device__ __noinline__ void sum_in_order(integer value, integer* scratch) {
  int own = threadIdx.x;
  __syncthreads();
  scratch[own] = value;
  for (int distance = 1; distance < blockDim.x; distance *= 2) {
    __syncthreads();
    integer left = own < distance ? 0 : scratch[own - distance];
    __syncthreads();
    scratch[own] += left;
  }
  __syncthreads();
}

__device__ __noinline__ float largest(const float* values, int vocab, integer* scratch) {
  unsigned result = 0;
  EACH_TOKEN(i) result = max(result, ordered(values[i]));
  return unordered(combined(result, scratch, [](integer a, integer b) { return max(a, b); }));
}

__device__ __noinline__ float log_sum_of_exp(const float* values, int vocab, integer* scratch) {
  float highest = largest(values, vocab, scratch);
  integer result = 0;
  EACH_TOKEN(i) result += whole(expf(values[i] - highest));
  return highest + logf((float)sum(result, scratch) / ONE);
}

// Sort the tokens by key, largest first and equal ones by index, and keep them until their masses sum to `enough`.
// With `all_equal`, all tokens with the last key are kept.
__device__ __noinline__ void keep_first(
    const unsigned* keys, const integer* masses, float* kept, integer enough, bool all_equal, int vocab,
    integer* scratch) {
  __syncthreads();
  if (vocab <= COMPARED) {
    EACH_TOKEN(i) {
      integer before = 0;
      for (int j = 0; j < vocab; j++)
        if (keys[j] > keys[i] || (keys[j] == keys[i] && j < i && !all_equal)) before += masses[j];
      if (before >= enough) kept[i] = -INFINITY;
    }
    return;
  }
  unsigned low = 0, high = 0xffffffff;
  while (low < high) {  // find the smallest key above which there is less than enough
    unsigned middle = low + (high - low) / 2;
    integer above = 0;
    EACH_TOKEN(i) if (keys[i] > middle) above += masses[i];
    if (sum(above, scratch) < enough)
      high = middle;
    else
      low = middle + 1;
  }
  Range own = own_range(vocab);
  integer above = 0, equal = 0;
  for (int i = own.begin; i < own.end; i++) {
    if (keys[i] > low) above += masses[i];
    if (keys[i] == low) equal += masses[i];
  }
  integer before = sum(above, scratch);
  sum_in_order(equal, scratch);
  if (threadIdx.x) before += scratch[threadIdx.x - 1];
  for (int i = own.begin; i < own.end; i++) {
    if (keys[i] < low) kept[i] = -INFINITY;
    if (keys[i] != low || all_equal) continue;
    if (before >= enough) kept[i] = -INFINITY;
    before += masses[i];
  }
  __syncthreads();
}

// Draw a token for each row: `draw_with_torch` in gpu_draw.py. Each row has a block, in which the threads, a power of
// two, share the token types. The arrays allowed, kept, keys and masses (rows, vocab) are scratch memory.
extern "C" __global__ void __launch_bounds__(MOST) draw(
    Source source, Settings settings, Window window, Drawn drawn, float* allowed, float* kept, unsigned* keys,
    integer* masses, int vocab) {
  __shared__ integer scratch[MOST];
  __shared__ int token;
  integer row = blockIdx.x;
  const float* logits = source.logits + row * vocab;
  allowed += row * vocab, kept += row * vocab, keys += row * vocab, masses += row * vocab;

  float log_total = log_sum_of_exp(logits, vocab, scratch);
  EACH_TOKEN(i) allowed[i] = kept[i] = allowed_logit(source, settings, window, i, vocab);

  if (settings.top_k) {
    EACH_TOKEN(i) keys[i] = ordered(allowed[i]), masses[i] = 1;
    keep_first(keys, masses, kept, settings.top_k[row], true, vocab, scratch);
  }
  for (int typical = 1; typical >= 0; typical--) {  // typical-p, then top-p
    const float* enough = typical ? settings.typical_p : settings.top_p;
    if (!enough || enough[row] >= 1) continue;
    float log_sum = log_sum_of_exp(kept, vocab, scratch), entropy = 0;
    EACH_TOKEN(i) masses[i] = whole(expf(kept[i] - log_sum));
    if (typical) {
      integer information = 0;
      EACH_TOKEN(i) {
        float logprob = kept[i] - log_sum, probability = expf(logprob);
        if (probability > 0) information += whole(probability * logprob);
      }
      entropy = (float)-sum(information, scratch) / ONE;
    }
    EACH_TOKEN(i) keys[i] = ordered(typical ? -fabsf(kept[i] - log_sum + entropy) : allowed[i]);
    integer least = max(whole(enough[row]), (integer)1);  // the first token is always kept
    keep_first(keys, masses, kept, least, false, vocab, scratch);
  }
  float highest = largest(kept, vocab, scratch);
  if (settings.min_p) {
    float least = highest + logf(settings.min_p[row]);
    EACH_TOKEN(i) if (kept[i] < least) kept[i] = -INFINITY;
  }
  __syncthreads();

  // The first token up to which the weights sum to more than the random number.
  Range own = own_range(vocab);
  integer weight = 0;
  for (int i = own.begin; i < own.end; i++) weight += whole(expf(kept[i] - highest));
  sum_in_order(weight, scratch);
  integer target = source.uniforms[entry_of(source)] * scratch[blockDim.x - 1];
  integer up_to = threadIdx.x ? scratch[threadIdx.x - 1] : 0;
  if (threadIdx.x == 0) token = vocab - 1;
  __syncthreads();
  if (up_to <= target && target < scratch[threadIdx.x]) {
    int i = own.begin;
    while (i < own.end - 1 && (up_to += whole(expf(kept[i] - highest))) <= target) i++;
    token = i;
  }
  if (settings.greedy && settings.greedy[row]) {
    highest = largest(allowed, vocab, scratch);
    if (threadIdx.x == 0) token = vocab - 1;
    __syncthreads();
    EACH_TOKEN(i) if (allowed[i] == highest) atomicMin(&token, i);
  }
  __syncthreads();
  if (threadIdx.x == 0) write_token(source, window, drawn, token, logits[token] - log_total, vocab);
}
