// The surprisal of what a model wrote: a string with one character for each UTF-16 code unit of a text.
(() => {
  // The first code unit of a token has its surprisal in hundredths of a bit, counted from the character ZERO; the
  // others have GOES_ON. Text that no model wrote has spaces. app/draft.py makes these strings.
  const ZERO = 0xe000, GOES_ON = "-", MAX_LEVEL = 9;

  window.lm = Object.assign(window.lm ?? {}, {
    bits: {
      // The color level of a code unit: whole bits. Null if no model wrote it.
      level(bits, index) {
        while (bits[index] === GOES_ON) index--;
        const hundredths = bits.charCodeAt(index) - ZERO;
        return hundredths >= 0 ? Math.min(MAX_LEVEL, Math.floor(hundredths / 100)) : null;
      },
      // The marks before `end`, without those of a token that `end` would split.
      cut(bits, end) {
        const kept = bits.slice(0, end);
        return bits[end] === GOES_ON ? kept.replace(/[^-]-*$/, "") : kept;
      },
      // Marks from the database or a file. Older ones are whole bits: one digit for each code unit. Empty if invalid.
      read(value, text) {
        if (value.length > text.length || !/^[ \-\d\uE000-\uF8FF]*$/.test(value)) return "";
        return value.replace(/\d/g, (digit) => String.fromCharCode(ZERO + 100 * digit));
      },
    },
  });
})();
