// Messages: they push the page down, so that they cover nothing.
(function setUp() {
  const messages = document.querySelector(".toast-wrap");
  if (!messages) return setTimeout(setUp, 50);
  // Gradio has these in English only.
  const known = [
    [/^(Error|Connection Lost)$/, () => lm.translate("Error")],
    [/^Warning$/, () => lm.translate("Warning")],
    [/^Info$/, () => lm.translate("Note")],
    [/^Connection to the server was lost/,
      () => lm.translate("The server does not answer. This page reloads as soon as it does.")],
    [/^Connection errored out/, () => lm.translate("The server did not answer; try again.")],
    [/^This application is currently busy/, () => lm.translate("The server is busy; try again in a moment.")],
    [/^File\(s\) exceed the maximum allowed size of ([^:]+):/,
      ([, size]) => lm.translate("The file is too large: at most {size} are accepted.", { size: size.replace("b", "B") })],
  ];

  function translate(message) {
    for (const [pattern, text] of known) {
      const found = pattern.exec(message.textContent.trim());
      if (found) message.textContent = text(found);
    }
  }

  // A message may come again while it is shown.
  function hideRepeated(box) {
    const seen = new Set();
    for (const item of box.querySelectorAll(".toast-message-item")) {
      const text = item.textContent.trim(), line = item.previousElementSibling;
      item.hidden = seen.has(text);
      if (line) line.hidden = item.hidden;
      seen.add(text);
    }
  }

  new ResizeObserver(() => {
    document.body.style.paddingTop = `${messages.offsetHeight}px`;
    // Gradio makes the header of a message a button, which contains a button.
    for (const header of messages.querySelectorAll(".toast-header[role]"))
      for (const name of ["role", "tabindex"]) header.removeAttribute(name);
    messages.querySelectorAll(".toast-title, .toast-message-text").forEach(translate);
    messages.querySelectorAll(".toast-body").forEach(hideRepeated);
    for (const button of messages.querySelectorAll(".toast-close")) button.setAttribute("aria-label", lm.translate("Close"));
  }).observe(messages);
})();
