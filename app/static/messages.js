// Messages: they push the page down, so that they cover nothing.
(function setUp() {
  const messages = document.querySelector(".toast-wrap");
  if (!messages) return setTimeout(setUp, 50);
  new ResizeObserver(() => {
    document.body.style.paddingTop = `${messages.offsetHeight}px`;
    // Gradio makes the header of a message a button, which contains a button.
    for (const header of messages.querySelectorAll(".toast-header[role]"))
      for (const name of ["role", "tabindex"]) header.removeAttribute(name);
    // Gradio has this label in English only.
    for (const button of messages.querySelectorAll(".toast-close")) button.setAttribute("aria-label", lm.translate("Close"));
  }).observe(messages);
})();
