// Dropdowns that can be searched: their text is selected when they are opened, so that typing replaces it.
(() => {
  const select = ({ target }) => {
    if (target.matches?.('input[role="combobox"]:not([readonly])')) target.select();
  };
  document.addEventListener("focusin", select);
  document.addEventListener("click", select);
})();
