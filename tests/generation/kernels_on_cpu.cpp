// Runs the kernels of lm/generation/gpu_kernels.cu on a CPU: tests/generation/kernels_on_cpu.py.
//
// The threads of a block take turns: each runs until it waits for the others (__syncthreads) or ends. After each
// wait, they run in another order, so that a result that depends on the order changes.

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

struct Index {
  int x, y;
};
static Index blockIdx, threadIdx, blockDim, gridDim;

#define __global__
#define __device__ static
#define __shared__ static
#define __launch_bounds__(most)
#define __noinline__

static float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

static unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

static void atomicAdd(int* sum, int value) { *sum += value; }
static void atomicMin(int* least, int value) { *least = std::min(*least, value); }
using std::max;
using std::min;

// A context starts a thread on a stack of its own. After that, jumps switch between threads, which is faster.
struct Thread {
  ucontext_t context;
  jmp_buf place;
  bool started, ended;
};
static std::vector<Thread> threads;
static jmp_buf scheduler;

static void leave() {
  if (!_setjmp(threads[threadIdx.x].place)) _longjmp(scheduler, 1);
}

static void enter(int number) {
  threadIdx = {number, 0};
  if (_setjmp(scheduler)) return;
  Thread& thread = threads[number];
  if (thread.started) _longjmp(thread.place, 1);
  thread.started = true;
  setcontext(&thread.context);
}

static void __syncthreads() { leave(); }

#include "gpu_kernels.cu"

static const std::size_t STACK = 1 << 16;
static void (*kernel)(void**);
static void** arguments;

template <typename... Types, std::size_t... Numbers>
static void call(void (*function)(Types...), void** pointers, std::index_sequence<Numbers...>) {
  function(*static_cast<std::remove_const_t<Types>*>(pointers[Numbers])...);
}

template <typename... Types>
static void call(void (*function)(Types...), void** pointers) {
  call(function, pointers, std::index_sequence_for<Types...>());
}

static void run_thread() {
  while (true) {  // one block after the other
    kernel(arguments);
    threads[threadIdx.x].ended = true;
    leave();
  }
}

static void make_threads(int count) {
  static std::vector<char> stacks;
  if (stacks.size() < STACK * count) stacks = std::vector<char>(STACK * count);
  threads.assign(count, Thread());
  for (int i = 0; i < count; i++) {
    ucontext_t& context = threads[i].context;
    getcontext(&context);
    context.uc_stack.ss_sp = &stacks[STACK * i];
    context.uc_stack.ss_size = STACK;
    makecontext(&context, run_thread, 0);
  }
}

// Returns the number of times that some threads wait although others have ended.
static int run_block(int count) {
  for (Thread& thread : threads) thread.ended = false;
  int running = count, errors = 0;
  for (int turn = 0; running; turn++) {
    int before = running;
    for (int i = 0; i < count; i++) {
      int number = turn % 2 ? count - 1 - i : (i + 7 * turn) % count;
      if (threads[number].ended) continue;
      enter(number);
      running -= threads[number].ended;
    }
    errors += 0 < running && running < before;
  }
  return errors;
}

// Returns the number of times that threads waited for others that had ended: on a GPU, an error.
extern "C" int launch(const char* name, int x, int y, int count, void** pointers) {
  std::string wanted = name;
  kernel = wanted == "join" ? +[](void** p) { call(join, p); }
           : wanted == "advance" ? +[](void** p) { call(advance, p); }
                                 : +[](void** p) { call(draw, p); };
  arguments = pointers;
  gridDim = {x, y};
  blockDim = {count, 1};
  int errors = 0;
  if (wanted == "draw") make_threads(count);  // in the other kernels, none waits
  for (int block = 0; block < x * y; block++) {
    blockIdx = {block % x, block / x};
    if (wanted == "draw") {
      errors += run_block(count);
      continue;
    }
    for (threadIdx.x = 0; threadIdx.x < count; threadIdx.x++) kernel(pointers);
  }
  return errors;
}
