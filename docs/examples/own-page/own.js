import { TornadoLive } from "./tornado-live.js";
const [talk, note, words] = ["talk", "note", "words"].map((id) => document.getElementById(id));
const said = {}; // "1 You" -> the words so far
const live = new TornadoLive({ url: "http://127.0.0.1:3001" });
live.addEventListener("transcription", ({ detail: { turn, isUser, isFinal, text } }) => {
  const who = `${turn} ${isUser ? "You" : "Assistant"}`;
  said[who] = isFinal ? text : (said[who] ?? "") + text;
  words.textContent = Object.entries(said).map((entry) => entry.join(": ")).join("\n");
});
const tell = (error) => (note.textContent = error.message);
live.addEventListener("error", ({ detail }) => tell(detail));
talk.onclick = () => live.connect().then(() => live.startMicrophone()).catch(tell);
