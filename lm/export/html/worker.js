// The model, in a worker of its own so that the page stays responsive

// Messages in: load, write, stop, encode. Messages out: loaded, tokens, done, encoded, failed.
const ALTERNATIVES = 8;
const SLICE = 25; // milliseconds between two messages
let model = null, run = 0;

const requests = {
  load({ config, buffer, simd }) {
    const network = new Network(config.network, readTensors(buffer, config), simd);
    const tokenizer = new Tokenizer(config.tokenizer);
    model = { network, tokenizer, config };
    const labels = config.tokenizer.names.map((_, token) => tokenizer.label(token));
    postMessage({ type: "loaded", labels, simd: network.simd });
  },
  encode({ key, text }) {
    postMessage({ type: "encoded", key, tokens: model.tokenizer.encode(text), unknown: model.tokenizer.unknown(text) });
  },
  stop() {
    run++;
  },
  // Continue `prompt` by `given` tokens and then by others, `length` in all; the first `known` are not reported.
  async write({ key, prompt, given = [], known = 0, length, temperature, topP, seed }) {
    const { network, tokenizer, config } = model, own = ++run, random = randomNumbers(seed);
    const { start, suppressed, backward } = config;
    const tokens = tokenizer.encode(prompt), text = tokenizer.textStream(prompt, backward);
    let batch = [], sent = performance.now();
    const flush = async (reading) => {
      postMessage({ type: "tokens", key, batch, reading });
      batch = [];
      await new Promise(nextTurn); // lets messages arrive
      sent = performance.now();
      return own === run;
    };
    const isLate = () => performance.now() - sent > SLICE;

    network.reset();
    const unread = [start, ...(backward ? tokens.reverse() : tokens)];
    let logits = null;
    for (let k = 0; k < unread.length; k++) {
      logits = network.step(unread[k]);
      if (isLate() && !(await flush(k / unread.length))) return finish(key, true);
    }
    for (let k = 0; k < length; k++) {
      if (isLate() && !(await flush())) return finish(key, true);
      const total = logSumExp(logits), alternatives = mostLikely(logits, ALTERNATIVES);
      const logprob = (token) => logits[token] - total;
      const report = { alternatives, logprobs: alternatives.map(logprob) };
      let token = given[k];
      if (token === undefined) {
        const allowed = logits.slice();
        for (const other of suppressed) allowed[other] = -Infinity;
        token = sample(allowed, temperature, topP, random);
      }
      Object.assign(report, { token, logprob: logprob(token), text: text.step(token) });
      const last = token === tokenizer.end || k === length - 1;
      if (last && backward) report.text = text.rest() + report.text;
      if (k >= known) batch.push(report);
      if (token === tokenizer.end) break;
      if (!last) logits = network.step(token);
    }
    await flush();
    finish(key, false);
  },
};

function finish(key, stopped) {
  postMessage({ type: "done", key, stopped });
}

const turns = new MessageChannel();
function nextTurn(resolve) {
  turns.port1.onmessage = resolve;
  turns.port2.postMessage(0);
}

onmessage = async ({ data }) => {
  try {
    await requests[data.type](data);
  } catch (error) {
    postMessage({ type: "failed", message: String(error.message ?? error) });
  }
};
