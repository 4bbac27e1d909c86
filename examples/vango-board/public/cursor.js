// Gives the writer the cursor back. After a resume the framework puts a whole new body into the page, and with it goes
// the focus. What is in the fields is the server's word alone: this script never changes a value.

const SETTLED_MS = 150; // what was typed while the line was down comes back from the server first
let place = null;

const remember = () => {
  const field = document.activeElement;
  if (field && field.id && field !== document.body) {
    place = { id: field.id, from: field.selectionStart, to: field.selectionEnd };
  }
};

const giveBack = () => {
  const field = place && document.getElementById(place.id);
  if (!field || document.activeElement !== document.body) return;
  const { from, to } = place; // taking the focus is remembered, too
  field.focus({ preventScroll: true });
  if (typeof from === "number") field.setSelectionRange(from, to);
};

for (const happening of ["focusin", "input", "keyup", "pointerup"]) document.addEventListener(happening, remember);

// Somebody who leaves a field that is still there afterwards has left it on purpose.
document.addEventListener("focusout", ({ target, relatedTarget }) => {
  if (relatedTarget || !document.hasFocus()) return;
  queueMicrotask(() => {
    if (target.isConnected) place = null;
  });
});

let waiting;
new MutationObserver(() => {
  if (!place || document.activeElement !== document.body) return;
  clearTimeout(waiting);
  waiting = setTimeout(giveBack, SETTLED_MS);
}).observe(document.body, { childList: true, subtree: true });
