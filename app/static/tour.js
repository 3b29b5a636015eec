// The tour: each step fills in an example and presses a button, as the user would.
(() => {
  const find = (selector) => document.querySelector(selector);
  const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  async function shown(selector) {
    for (let tries = 0; tries < 100; tries++, await wait(50)) {
      const element = find(selector);
      if (element?.offsetParent && !element.disabled) return element;
    }
    return null;
  }
  async function fill(selector, text) {
    const field = await shown(selector);
    if (!field) return;
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
    await wait(50); // until Gradio has processed the event
  }
  const press = async (selector) => (await shown(selector))?.click();
  const CODE = 'def read_config(path):\n    """Return the settings in the file."""\n';

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
    surprisal: () => press('#inside-show input[value="tokens"]'),
    async units() {
      await shown("#inside:not(.editing, .stale)");
      await press('#inside-sections [role="tab"]:nth-of-type(2)');
      await press("#inside-find");
    },
    async compare() {
      await fill("#compare-prompt textarea", "class Reader:\n    def ");
      await press("#compare-run");
    },
    train: () => {},
  };
})();
