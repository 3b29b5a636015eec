// The page: sends requests to the worker and shows what it writes. Text is inserted as text, never as HTML
(() => {
  const $ = (id) => document.getElementById(id);
  const config = JSON.parse($("config").textContent), { backward } = config;
  const SHORT = ["char", "byte"].includes(config.tokenizer.kind); // tokens of about one character
  let labels = []; // of all tokens
  let current = null; // the text: { key, prompt, tokens, seed, characters, began, seconds }
  let writing = false, pointed = -1, pinned = false;

  const worker = new Worker(URL.createObjectURL(new Blob([$("worker").textContent], { type: "text/javascript" })));
  worker.onmessage = ({ data }) => replies[data.type](data);
  worker.onerror = (event) => replies.failed(event);
  const replies = {
    loaded(data) {
      labels = data.labels;
      $("empty").textContent = "Press Write, and the model makes something up.";
      $("write").disabled = false;
      checkPrompt();
    },
    encoded({ key, unknown }) {
      if (key !== $("prompt").value) return;
      const shown = unknown.slice(0, 8).map((part) => `“${part}”`).join(", ") + (unknown.length > 8 ? " …" : "");
      $("unknown").textContent = unknown.length ? `The model has never seen ${shown} and reads a placeholder instead.` : "";
    },
    tokens({ key, batch, reading }) {
      if (key !== current?.key) return;
      if (reading !== undefined) $("progress").textContent = `Reading: ${Math.round(100 * reading)}%`;
      if (!batch.length) return;
      add(batch);
      showProgress();
    },
    done({ key, stopped }) {
      if (key !== current?.key) return;
      setWriting(false);
      showProgress();
      const count = current.tokens.length.toLocaleString("en");
      $("status").textContent = `${stopped ? "Stopped" : "Done"}: ${count} tokens.`;
    },
    failed({ message }) {
      setWriting(false);
      $("write").disabled = true;
      $("empty").hidden = false;
      $("empty").textContent = $("status").textContent = `The model cannot run in this browser: ${message}`;
    },
  };

  // Writing.

  // Write a new text or, with `given` tokens, change the present one from token `known` on. If the form is not valid,
  // such as without a length, the browser says so, and nothing changes.
  function write({ prompt = $("prompt").value, given = [], known = 0, length = 0 } = {}) {
    if (!$("form").reportValidity()) return;
    const typed = $("seed").value, seed = typed === "" ? Math.floor(Math.random() * 2 ** 32) : Number(typed) >>> 0;
    closePanel();
    const tokens = current?.tokens.slice(0, known) ?? [];
    if (known) while ($("text").childElementCount > known + 1) edge().remove();
    else $("text").replaceChildren(prompted(prompt));
    current = { key: (current?.key ?? 0) + 1, prompt, tokens, seed, characters: 0, began: performance.now(), seconds: 0 };
    for (const id of ["text", "bar"]) $(id).hidden = false;
    $("empty").hidden = true;
    $("progress").textContent = "";
    setWriting(true);
    $("status").textContent = "Writing.";
    const [temperature, topP] = [$("temperature").valueAsNumber, $("top-p").valueAsNumber];
    length = length || Math.max($("length").valueAsNumber, given.length);
    worker.postMessage({ type: "write", key: current.key, prompt, given, known, length, temperature, topP, seed });
    if ($("sheet").getBoundingClientRect().top > 0.6 * innerHeight) $("stop").scrollIntoView({ block: "start" });
  }

  function setWriting(value) {
    const focused = [$("write"), $("stop")].includes(document.activeElement);
    writing = value;
    document.body.classList.toggle("writing", writing);
    $("write").hidden = writing;
    $("stop").hidden = !writing;
    $("continue").disabled = writing;
    if (focused) $(writing ? "stop" : "write").focus();
  }

  function prompted(prompt) {
    const element = document.createElement("span");
    element.className = "prompt";
    element.textContent = prompt;
    return element;
  }

  // The token at the growing end of the text.
  function edge() {
    return backward ? $("text").firstElementChild : $("text").lastElementChild;
  }

  function add(batch) {
    const elements = batch.map(({ text, logprob }) => {
      const element = document.createElement("i"), bits = Math.floor(-logprob / Math.LN2);
      element.textContent = text;
      if (bits > 0) element.dataset.level = Math.min(bits, 9);
      if (text.includes("\n")) element.className = "ends-line";
      current.characters += text.length;
      return element;
    });
    current.tokens.push(...batch);
    if (backward) $("text").prepend(...elements.reverse());
    else $("text").append(...elements);
    current.seconds = (performance.now() - current.began) / 1000;
  }

  function showProgress() {
    const { characters, seconds, seed } = current, number = (value) => Math.round(value).toLocaleString("en");
    const speed = seconds > 0 ? ` · ${number(characters / seconds)} per second` : "";
    $("progress").textContent = `${number(characters)} characters${speed} · seed ${seed}`;
  }

  // Alternatives.

  const elementOf = (index) => $("text").children[backward ? current.tokens.length - 1 - index : index + 1];
  function indexOf(target) {
    const element = target.closest?.("#text i");
    if (!element) return -1;
    const position = Array.prototype.indexOf.call($("text").children, element);
    return backward ? current.tokens.length - 1 - position : position - 1;
  }

  const visible = (label) => label.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣") || "∅";
  const percent = (logprob) => (Math.exp(logprob) < 0.001 ? "<0.1%" : `${(100 * Math.exp(logprob)).toFixed(1)}%`);
  const code = (token) => Object.assign(document.createElement("code"), { textContent: visible(labels[token]) });

  function showPanel(index, pin, spoken = false) {
    const report = current.tokens[index], panel = $("panel");
    mark(index);
    pinned = pin;
    panel.setAttribute("aria-live", spoken ? "polite" : "off");
    const bits = (-report.logprob / Math.LN2).toFixed(1);
    $("chosen").replaceChildren(code(report.token), ` ${percent(report.logprob)} · ${bits} bits`);
    const likely = report.alternatives.filter((token, rank) => rank < 3 || Math.exp(report.logprobs[rank]) >= 0.001);
    $("options").replaceChildren(...likely.map((token, rank) => {
      const button = document.createElement("button"), share = document.createElement("span");
      button.type = "button";
      share.textContent = percent(report.logprobs[rank]);
      button.append(code(token), share);
      button.tabIndex = pin ? 0 : -1;
      if (token === report.token) button.className = "chosen";
      button.style.setProperty("--share", Math.exp(report.logprobs[rank] - report.logprobs[0]));
      button.addEventListener("click", () => choose(index, token));
      return button;
    }));
    $("hint").textContent = pin ? "Choose one to continue." : "Click to choose another.";
    panel.classList.toggle("pinned", pin);
    panel.hidden = false;
    place(index);
  }

  function place(index) {
    const panel = $("panel"), sheet = $("sheet").getBoundingClientRect();
    const token = elementOf(index).getClientRects()[0] ?? $("text").getBoundingClientRect();
    const below = token.bottom + 6, above = token.top - 6 - panel.offsetHeight;
    const top = below + panel.offsetHeight > innerHeight && above > 0 ? above : below;
    const left = Math.max(8, Math.min(token.left - 12, document.documentElement.clientWidth - panel.offsetWidth - 8));
    if (pinned && getComputedStyle(panel).position === "fixed") {
      // At the bottom of a phone's screen: keep the token above it in view.
      const hidden = token.bottom + 12 - panel.getBoundingClientRect().top;
      if (hidden > 0) scrollBy({ top: hidden });
    }
    panel.style.left = `${left - sheet.left - $("sheet").clientLeft}px`;
    panel.style.top = `${top - sheet.top - $("sheet").clientTop}px`;
  }

  function mark(index) {
    $("text").querySelector(".current")?.classList.remove("current");
    pointed = index;
    if (index >= 0) elementOf(index).classList.add("current");
  }

  function closePanel() {
    pinned = false;
    $("panel").hidden = true;
    mark(-1);
  }

  function choose(index, token) {
    const given = current.tokens.slice(0, index).map((report) => report.token);
    $("text").focus({ preventScroll: true });
    write({ prompt: current.prompt, given: [...given, token], known: index });
  }

  // Events.

  function checkPrompt() {
    const text = $("prompt").value;
    worker.postMessage({ type: "encode", key: text, text });
  }

  async function copy() {
    const written = current.tokens.map(({ text }) => text);
    const text = backward ? written.reverse().join("") + current.prompt : current.prompt + written.join("");
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not allowed here: copy from a field, as before there was such an interface
      const field = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
      $("copy").focus();
    }
    $("copy").textContent = $("status").textContent = "Copied";
    setTimeout(() => ($("copy").textContent = "Copy"), 1500);
  }

  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!writing && !$("write").disabled) write();
  });
  $("stop").addEventListener("click", () => worker.postMessage({ type: "stop" }));
  $("continue").addEventListener("click", () => {
    const given = current.tokens.map((report) => report.token);
    write({ prompt: current.prompt, given, known: given.length, length: given.length + $("length").valueAsNumber });
  });
  $("copy").addEventListener("click", copy);
  $("close").addEventListener("click", () => { closePanel(); $("text").focus({ preventScroll: true }); });
  $("prompt").addEventListener("input", checkPrompt);
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
  });
  for (const id of ["temperature", "top-p"]) {
    const show = () => ($(`${id}-value`).textContent = $(id).valueAsNumber.toFixed(2));
    $(id).addEventListener("input", show);
    show();
  }
  for (const id of ["colors", "monospace"])
    $(id).addEventListener("change", () => document.body.classList.toggle(id, $(id).checked));

  $("text").addEventListener("pointerover", ({ target, pointerType }) => {
    const index = indexOf(target);
    if (pointerType === "mouse" && !pinned && index >= 0) showPanel(index, false);
  });
  $("text").addEventListener("pointerleave", ({ pointerType }) => {
    if (pointerType === "mouse" && !pinned) closePanel();
  });
  $("text").addEventListener("click", ({ target }) => {
    const index = indexOf(target);
    if (index < 0 || (pinned && index === pointed) || !document.getSelection().isCollapsed) closePanel();
    else showPanel(index, true);
  });
  $("text").addEventListener("keydown", (event) => {
    const right = getComputedStyle($("text")).direction === "rtl" ? -1 : 1, count = current.tokens.length;
    const step = { ArrowRight: right, ArrowLeft: -right }[event.key];
    const order = backward ? -1 : 1; // from the order on the page to that of writing
    if (step && count) {
      event.preventDefault();
      const next = pointed < 0 ? (order > 0 ? 0 : count - 1) : pointed + step * order;
      showPanel(Math.max(0, Math.min(count - 1, next)), false, true);
    } else if (event.key === "Enter" && pointed >= 0) {
      event.preventDefault();
      showPanel(pointed, true);
      $("options").firstElementChild.focus();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (!$("panel").hidden) {
      if ($("panel").contains(document.activeElement)) $("text").focus({ preventScroll: true });
      closePanel();
    } else if (writing) worker.postMessage({ type: "stop" });
  });
  document.addEventListener("click", ({ target }) => {
    if (pinned && !target.closest("#text, #panel")) closePanel();
  });

  // base64 in parts, because the weights can be larger than the longest string.
  function decoded(text) {
    const bytes = new Uint8Array((text.length / 4) * 3 - (text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0));
    for (let start = 0, at = 0; start < text.length; start += 1 << 20)
      for (const character of atob(text.slice(start, start + (1 << 20)))) bytes[at++] = character.charCodeAt(0);
    return bytes.buffer;
  }

  $("length").value = SHORT ? 1000 : 300;
  $("monospace").checked = config.monospace;
  if (backward) $("prompt-label").textContent = "End with";
  document.body.classList.toggle("backward", backward);
  document.body.classList.toggle("monospace", config.monospace);
  const buffer = decoded($("weights").textContent.trim());
  worker.postMessage({ type: "load", config, buffer }, [buffer]);
  for (const id of ["weights", "config", "worker"]) $(id).remove(); // they take memory
})();
