// Sampling: from logits to the next token

// A generator of numbers in [0, 1) (Tommy Ettinger's mulberry32).
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

function logSumExp(logits) {
  let largest = -Infinity, sum = 0;
  for (const logit of logits) largest = Math.max(largest, logit);
  for (const logit of logits) sum += Math.exp(logit - largest);
  return largest + Math.log(sum);
}

// The `count` most likely tokens, the most likely first; among equals, the lower id.
function mostLikely(logits, count) {
  const best = [];
  for (let token = 0; token < logits.length; token++) {
    if (best.length === count && !(logits[token] > logits[best[count - 1]])) continue;
    let at = best.length;
    while (at > 0 && logits[token] > logits[best[at - 1]]) at--;
    best.splice(at, 0, token);
    best.length = Math.min(best.length, count);
  }
  return best;
}

// As in lm/generation/samplers.py: the temperature first, then the smallest set of the most likely tokens whose
// probabilities sum to at least `topP`. Temperature 0: the most likely token.
function sample(logits, temperature, topP, random) {
  if (temperature <= 0) return mostLikely(logits, 1)[0];
  const count = logits.length, largest = logits.reduce((a, b) => Math.max(a, b));
  let weights = new Float64Array(count), total = 0;
  for (let token = 0; token < count; token++)
    total += weights[token] = Math.exp((logits[token] - largest) / temperature);
  if (topP < 1) {
    // All tokens up to this threshold together have at most 1 - topP.
    const threshold = ((1 - topP) * total) / count, candidates = [];
    for (let token = 0; token < count; token++) if (weights[token] > threshold) candidates.push(token);
    candidates.sort((a, b) => weights[b] - weights[a]);
    const kept = new Float64Array(count);
    let sum = 0;
    for (const token of candidates) {
      if (sum >= topP * total) break;
      sum += kept[token] = weights[token];
    }
    [weights, total] = [kept, sum];
  }
  let rest = random() * total;
  for (let token = 0; token < count; token++) if ((rest -= weights[token]) < 0) return token;
  return weights.findLastIndex((weight) => weight > 0); // rounding
}
