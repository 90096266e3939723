import { TornadoLive } from "./tornado-live.js";
const [ask, words, lamp, note] = ["ask", "words", "lamp", "note"].map((id) => document.getElementById(id));
const live = new TornadoLive({ url: "http://127.0.0.1:3001" });

live.offer({
  switch_lamp({ on }) {
    lamp.textContent = `The lamp is ${on ? "on" : "off"}.`;
    return { on };
  },
});

live.addEventListener("consent", ({ detail: { name, args, answer, signal } }) => {
  const dialog = document.createElement("dialog");
  dialog.append(`May the assistant do this? ${name} ${JSON.stringify(args ?? {})} `);
  for (const word of ["No", "Yes"]) {
    const button = document.createElement("button");
    button.textContent = word;
    button.onclick = () => answer(word === "Yes");
    dialog.append(button);
  }
  dialog.oncancel = () => answer(false); // Escape
  signal.addEventListener("abort", () => dialog.remove()); // answered, or nobody waits for it any more
  document.body.append(dialog);
  dialog.showModal();
});

ask.onsubmit = async (event) => {
  event.preventDefault();
  try {
    if (live.status === "DISCONNECTED") await live.connect();
    live.sendText(words.value);
  } catch (error) {
    note.textContent = error.message;
  }
};
live.addEventListener("transcription", ({ detail: { isUser, isFinal, text } }) => {
  if (isFinal && !isUser) note.textContent = text;
});
