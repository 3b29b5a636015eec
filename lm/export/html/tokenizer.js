// Text to tokens and back, as in lm/tokenization/tokenizer.py

// The byte of each character in the name of a byte-level token (GPT-2's table): printable ones are themselves, and
// those from 256 on are the other bytes in order.
const BYTE_NAMES = (() => {
  const printable = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
})();
const BYTES_OF = new Map(BYTE_NAMES.map((name, byte) => [name, byte]));
const GPT_2_WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;
const SPACE = /[\p{White_Space}\x1c-\x1f]+/u; // as in Python's str.split
const utf8 = new TextEncoder();

class Tokenizer {
  constructor({ kind, names, special, eos, unk, end, merges, scores }) {
    Object.assign(this, { kind, names, eos, unk, end });
    this.special = new Set(special);
    this.ids = new Map(names.map((name, id) => [name, id]));
    this.words = new Map(); // word -> its pieces
    if (merges) {
      this.ranks = new Map(); // pair of tokens -> its rank and what it becomes
      for (let rank = 0; rank < merges.length; rank += 2) {
        const [left, right] = [merges[rank], merges[rank + 1]];
        this.ranks.set(this.pair(left, right), { rank, merged: this.ids.get(names[left] + names[right]) });
      }
    }
    if (scores) {
      this.scores = scores;
      this.longest = names.reduce((longest, name) => Math.max(longest, name?.length ?? 0), 0);
    }
  }

  encode(text) {
    text = text.replace(/\p{Surrogate}/gu, "?"); // half a character is not text
    if (this.kind === "char") return Array.from(this.knownLineEnds(text), (character) => this.id(character));
    if (this.kind === "byte") return [...utf8.encode(text)];
    if (this.kind === "word") return text.replaceAll("\n", " <eos> ").split(SPACE).filter(Boolean).map((word) => this.id(word));
    return (text.match(GPT_2_WORDS) ?? []).flatMap((word) => this.pieces(word));
  }
  // What the vocabulary lacks, without repetitions.
  unknown(text) {
    if (this.kind === "char") return [...new Set(this.knownLineEnds(text))].filter((part) => !this.ids.has(part));
    if (this.kind === "word") return [...new Set(text.split(SPACE))].filter((part) => part && !this.ids.has(part));
    return [];
  }
  id(name) {
    return this.ids.get(name) ?? this.unk;
  }
  knownLineEnds(text) {
    return this.ids.has("\r") ? text : text.replaceAll("\r\n", "\n");
  }
  pieces(word) {
    let found = this.words.get(word);
    if (!found) {
      const letters = Array.from(utf8.encode(word), (byte) => BYTE_NAMES[byte]);
      found = this.ranks ? this.merge(letters.map((name) => this.ids.get(name))) : this.likeliest(letters.join(""));
      this.words.set(word, found);
    }
    return found;
  }
  // Byte-pair encoding: merge the pair of the lowest rank, the leftmost one first, until there is none.
  merge(tokens) {
    for (;;) {
      let best = null, at = 0;
      for (let k = 0; k + 1 < tokens.length; k++) {
        const found = this.ranks.get(this.pair(tokens[k], tokens[k + 1]));
        if (found && (!best || found.rank < best.rank)) [best, at] = [found, k];
      }
      if (!best) return tokens;
      tokens.splice(at, 2, best.merged);
    }
  }
  pair(left, right) {
    return left * this.names.length + right;
  }
  // Unigram: the pieces with the largest sum of scores (Viterbi). Among equals, the path found first.
  likeliest(letters) {
    const best = [{ score: 0 }];
    for (let start = 0; start < letters.length; start++)
      for (let end = start + 1; end <= Math.min(letters.length, start + this.longest); end++) {
        const token = this.ids.get(letters.slice(start, end));
        if (token === undefined) continue;
        const score = best[start].score + this.scores[token];
        if (!best[end] || score > best[end].score) best[end] = { score, start, token };
      }
    const tokens = [];
    for (let at = letters.length; at > 0; at = best[at].start) tokens.unshift(best[at].token);
    return tokens;
  }

  bytes(token) {
    const name = this.special.has(token) ? "" : this.names[token] ?? "";
    const byteLevel = this.kind !== "char" && [...name].every((letter) => BYTES_OF.has(letter));
    return byteLevel ? Uint8Array.from(name, (letter) => BYTES_OF.get(letter)) : utf8.encode(name);
  }
  // How to show a token: its text, or its bytes if they are not whole characters, or the name of a special token.
  label(token) {
    if (this.kind === "word") return (this.names[token] ?? "").replaceAll("<eos>", "\n");
    const bytes = this.bytes(token);
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) || (this.names[token] ?? "");
    } catch {
      const visible = (byte) => byte >= 32 && byte < 127 && byte !== 92;
      const shown = (byte) => (visible(byte) ? String.fromCharCode(byte) : "\\x" + byte.toString(16).padStart(2, "0"));
      return Array.from(bytes, shown).join("");
    }
  }
  // The text of generated tokens, one at a time, next to a prompt: `step(token)` and, after the last one of a backward
  // model, `rest()`.
  textStream(prompt, backward) {
    if (this.kind === "word") return new WordStream(this, prompt, backward);
    return backward ? new BackwardStream(this) : new ForwardStream(this);
  }
}

class ForwardStream {
  constructor(tokenizer) {
    this.tokenizer = tokenizer;
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  }
  step(token) {
    if (token === this.tokenizer.end) return this.decoder.decode(); // what replaces an incomplete character
    return this.decoder.decode(this.tokenizer.bytes(token), { stream: true });
  }
}

// Text that grows to the left: bytes wait for the first byte of their character.
class BackwardStream {
  constructor(tokenizer) {
    this.tokenizer = tokenizer;
    this.waiting = [];
  }
  step(token) {
    if (token === this.tokenizer.end) return "";
    const bytes = [...this.tokenizer.bytes(token), ...this.waiting];
    const first = bytes.findIndex((byte) => byte >> 6 !== 2);
    this.waiting = first < 0 ? bytes : bytes.slice(0, first);
    return first < 0 ? "" : this.decode(bytes.slice(first));
  }
  rest() {
    return this.decode(this.waiting);
  }
  decode(bytes) {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
  }
}

// Words are separated by spaces, except at the ends of lines. `neighbor`: the word next to which the next one is
// written.
class WordStream {
  constructor(tokenizer, prompt, backward) {
    Object.assign(this, { tokenizer, backward, neighbor: null });
    const edge = backward ? prompt.slice(0, 1) : prompt.slice(-1);
    const words = tokenizer.encode(prompt);
    if (words.length && !SPACE.test(edge)) this.neighbor = tokenizer.names[backward ? words[0] : words.at(-1)];
  }
  step(token) {
    const word = this.tokenizer.names[token] ?? "";
    const [left, right] = this.backward ? [word, this.neighbor] : [this.neighbor, word];
    const joined = this.neighbor === null || left.endsWith("<eos>") || right.startsWith("<eos>");
    const text = word.replaceAll("<eos>", "\n"), space = joined ? "" : " ";
    this.neighbor = word;
    return this.backward ? text + space : space + text;
  }
  rest() {
    return "";
  }
}
