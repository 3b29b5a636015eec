// The tour: each step fills in an example and presses a button, as the user would.
(() => {
  const find = (selector) => document.querySelector(selector);
  const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  async function shown(selector) {
    for (let tries = 0; tries < 100; tries++, await wait(50)) {
      const element = find(selector);
      if (element?.checkVisibility() && !element.disabled) return element;
    }
    return null;
  }
  async function fill(selector, text) {
    const field = await shown(selector);
    if (field) await lm.fill(field, text);
  }
  const press = async (selector) => (await shown(selector))?.click();
  // Look into the example, or into the text that the user has there.
  async function look() {
    await shown("#inside:not(.editing, .stale)");
    if (!lmStarters.isUntouched(find("#inside-text textarea").value)) return;
    find("#inside").classList.add("editing");
    await fill("#inside-text textarea", QUOTES);
    await press("#inside-look");
    await shown("#inside:not(.editing, .stale)");
  }
  const CODE = 'def read_config(path):\n    """Return the settings in the file."""\n';

  const QUOTES = [
    "def greet(name, loud=False):",
    "    \"\"\"Return a greeting for `name`; \"loud\" adds marks.\"\"\"",
    "    text = \"Hello, \" + name  # the \"usual\" words",
    "    if loud:",
    "        text = text.upper() + (\"!\" * 3)",
    "    return {\"text\": text, \"kind\": 'greeting', \"length\": len(text)}",
    "",
    "",
    "print(greet(\"world\", loud=True)[\"text\"])",
    "names = [\"Ada Lovelace\", 'Grace Hopper', \"Alan (the first) Turing\"]",
    "for number, name in enumerate(names):",
    "    print(number, greet(name, loud=(number == 2)), sep=\": \", end=\"\\n\")",
  ].join("\n") + "\n";

  window.lmTour = {
    async write() {
      await fill("#text textarea", CODE);
      await press("#generate");
    },
    async alternatives() {
      const text = await shown("#text textarea");
      if (!text.value) await fill("#text textarea", CODE);
      text.focus();
      text.setSelectionRange(4, 4);
      lm.requestAlternatives(4);
    },
    async surprisal() {
      await look();
      await press('#inside-show input[value="tokens"]');
    },
    async units() {
      await look();
      await shown("#inside:not(.editing, .stale)");
      await press("#inside-unit-section-button");
      await press("#inside-find");
    },
    async compare() {
      await fill("#compare-prompt textarea", "class Reader:\n    def ");
      await press("#compare-run");
    },
    train: () => {},
  };
})();
