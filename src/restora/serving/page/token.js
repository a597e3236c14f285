// Asks for the access token of the server, in a dialog.

const $ = (id) => document.getElementById(id);

// The token that was typed, or null if the dialog was left. Requests that ask at the same time share the dialog.
let asked = null;
export function askForToken({ refused }) {
  asked ??= new Promise((done) => {
    const dialog = $("token-dialog");
    dialog.returnValue = "";
    $("token-refused").hidden = !refused;
    dialog.showModal();
    if (refused) $("token").select();
    dialog.addEventListener("close", () => {
      asked = null;
      done(dialog.returnValue === "given" ? $("token").value.trim() : null);
    }, { once: true });
  });
  return asked;
}
