/** The page: buttons and keys to the client module, its events to the screen. */

import { LiveError, TornadoLive } from "../tornado-live.js";
import { serverError } from "../tornado-live/errors.js";
import { ConsentView } from "./consent.js";
import { Conversation } from "./conversation.js";
import { countdown, withoutWait } from "./countdown.js";
import { LoginView } from "./login.js";
import { ConversationView, element } from "./view.js";

const SERVER = new URL("../", import.meta.url); // it may be below a path of its host, beside others

const SESSION_KEY = `tornado-live.session ${SERVER.pathname}`;
const TALK_KEY = `tornado-live.push-to-talk ${SERVER.pathname}`;
const ASKED_KEY = `tornado-live.asked ${SERVER.pathname}`;
const CREDENTIAL_KEY = `tornado-live.credential ${SERVER.pathname}`;

// A question for each tool that comes with the server; shown only where the tool is there.
const EXAMPLES = [
  ["get_weather", "What's the weather in New York?"],
  ["execute_sql_query", "Execute a SQL query to get user data"],
  ["get_analytics", "Get analytics for the last week"],
  ["search_knowledge_base", "Search the knowledge base for information about AI"],
];

const STATUS_WORDS = {
  DISCONNECTED: "Not connected",
  CONNECTING: "Connecting",
  CONNECTED: "Connected",
  RECONNECTING: "Reconnecting",
  DRAINING: "Server is about to restart",
};

const KEEPS_TRYING = "this page keeps trying. What you type is sent when it is back, what you say may be lost.";
const AWAY = "The assistant cannot be reached just now";
const PLAIN_CODES = ["limited", "session_ended"]; // how it is meant to be: nobody has to look into a log
const ENDED_CODES = ["unauthenticated", "session_ended"]; // for who was talking, or for how long
const AWAY_CODES = ["unavailable", "upstream_timeout"]; // the server may answer; what is behind it does not

const BAD_TOOLS = "tools.yaml was edited and has a mistake. The tools from before the edit stay in use.";
const NO_TOOLS = "tools.yaml has a mistake, and there are no tools.";

const UNREACHABLE = "The server cannot be reached. Check that it is running";

const MEMORY_WORDS = { restored: "All of it is remembered", partial: "Partly remembered", none: "Starts fresh" };

const UPSTREAM_WORDS = { simulator: "Simulator", gemini: "Gemini", vertex: "Gemini on Vertex" };

const SILENCE_MS = 5000; // after push-to-talk: nobody waits longer without a sign
const HEALTH_MS = 2000;

const byId = (id) => document.getElementById(id);
const ui = {
  status: byId("status"),
  statusWords: byId("status-words"),
  statusDetail: byId("status-detail"),
  connect: byId("connect"),
  simulator: byId("simulator"),
  simulatorVoice: byId("simulator-voice"),
  invitation: byId("invitation"),
  welcome: byId("welcome"),
  examples: byId("examples"),
  notices: byId("notices"),
  consent: byId("consent"),
  login: byId("login"),
  alarm: byId("alarm"),
  microphone: byId("microphone"),
  microphoneWords: byId("microphone-words"),
  levelIn: byId("level-in"),
  levelOut: byId("level-out"),
  pushToTalk: byId("push-to-talk"),
  composer: byId("composer"),
  message: byId("message"),
  panel: byId("panel"),
  panelOpen: byId("panel-open"),
  panelClose: byId("panel-close"),
  tools: byId("tools"),
  toolsNone: byId("tools-none"),
  facts: byId("facts"),
  newConversation: byId("new-conversation"),
  person: byId("person"),
  personWords: byId("person-words"),
  logOut: byId("log-out"),
  announcements: byId("announcements"),
};

let credential = remembered(CREDENTIAL_KEY); // who is talking; null where nobody asked
let live = newLive(remembered(SESSION_KEY));
let conversation = new Conversation();
const view = new ConversationView({
  list: byId("turns"),
  scroller: byId("conversation"),
  latest: byId("latest"),
  askAgain,
});
const consent = new ConsentView({
  place: ui.consent,
  alarm: ui.alarm,
  describe: (name) => purposes.get(name) ?? "",
  answered: (id, ok) => draw(conversation.toolAnswered(id, ok)),
  resting: () => ui.message,
  changed: (open) => {
    asking = open;
    showTitle();
  },
});
const login = new LoginView({
  place: ui.login,
  check: refusalOf,
  done: loggedIn,
  resting: () => ui.message,
});
const purposes = new Map(); // name of a tool -> what it does, in a sentence
const facts = new Map();

let pushToTalk = remembered(TALK_KEY) === "yes";
let voiceless = false; // the simulator is without a voice, for now or for good
let speechWanted = false; // a press asked for the microphone, which is not open yet
let listed = ""; // the tools that are shown
let leftOff = null; // {talking, error} of a line that the server ended
let asking = false; // a question for the person is open
let behind = false; // a turn was open when the page came back: its beginning is told once it is over
let cut = false; // the page's own line is down; what the server mends on its other side is not
let healthTimer = null;
let silenceTimer = null;

// What this tab remembers over a reload. A browser that refuses storage only forgets.

function remembered(key) {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

function remember(key, value) {
  try {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, value);
  } catch {
    // see above
  }
}

/** Until when a question can be answered: one that is put again after a reload has been open for a while. */
function firstAsked({ id, until, signal }) {
  const asked = () => JSON.parse(remembered(ASKED_KEY) ?? "[]").filter(([other]) => other !== id);
  const known = JSON.parse(remembered(ASKED_KEY) ?? "[]").find(([other]) => other === id);
  const end = Math.min(until, known?.[1] ?? until);
  remember(ASKED_KEY, JSON.stringify([...asked(), [id, end]]));
  signal.addEventListener("abort", () => remember(ASKED_KEY, JSON.stringify(asked())));
  return end;
}

// Connecting and ending

/** One TornadoLive per conversation; the events of one that was given up no longer count. */
function newLive(sessionId) {
  const made = new TornadoLive({ url: SERVER, sessionId, token: () => credential });
  const on = (name, act) =>
    made.addEventListener(name, ({ detail }) => {
      if (made === live) act(detail);
    });
  on("status", showStatus);
  on("microphone", showMicrophone);
  on("level", showLevel);
  for (const sign of ["transcription", "text", "audio", "tool_call", "error", "closed"]) on(sign, heardSomething);
  on("transcription", (detail) => {
    draw(conversation.transcription(detail));
    if (detail.isFinal) announce(`${detail.isUser ? "You" : "Assistant"}: ${detail.text}`);
  });
  on("text", (detail) => draw(conversation.text(detail)));
  on("interrupted", (detail) => draw(conversation.interrupted(detail)));
  on("turn_complete", (detail) => {
    draw(conversation.turnComplete(detail));
    if (behind) showMissed();
    behind = false;
  });
  on("tool_call", (detail) => {
    draw(conversation.toolCall(detail));
    if (!detail.confirm) announce(`Tool ${detail.label || detail.name} is running.`);
  });
  on("consent", (question) => {
    closePanel(); // which may hide it
    consent.ask({ ...question, until: firstAsked(question) });
  });
  on("tool_progress", (detail) => {
    draw(conversation.toolProgress(detail));
    announce(detail.text);
  });
  on("tool_result", (detail) => {
    draw(conversation.toolResult(detail));
    announce(`Tool ${detail.name} ${detail.ok ? "is done" : detail.error === "refused" ? "was not used" : "failed"}.`);
  });
  on("tool_cancelled", (detail) => draw(conversation.toolCancelled(detail)));
  on("usage", ({ totalTokens }) => setFact("Tokens", totalTokens.toLocaleString("en")));
  on("warning", showWarning);
  on("error", (error) => {
    if (ENDED_CODES.includes(error.code)) leaveOff(error);
    if (error.code === "unauthenticated") askWho(error);
    else showError(error);
    if (AWAY_CODES.includes(error.code) && !cut) endTurns();
  });
  on("closed", ({ error }) => {
    if (!error || error.code === "unauthenticated") return;
    showError(error);
    if (error.code === "session_ended" && credential !== null) showTools(); // which asks, if it was for who is talking
  });
  return made;
}

/** True once the conversation is open. A session that the server no longer knows is replaced by a new one. */
async function connect() {
  clearNotices();
  try {
    await live.connect({ activity: pushToTalk ? "manual" : "auto" });
    return true;
  } catch (error) {
    if (!(error instanceof LiveError)) throw error;
    if (live.sessionId === null || !["session_not_found", "session_ended"].includes(error.code)) return false;
  }
  startOver();
  clearNotices();
  notice("The earlier conversation is over; this is a new one.", "info");
  try {
    await live.connect({ activity: pushToTalk ? "manual" : "auto" });
    return true;
  } catch (error) {
    if (!(error instanceof LiveError)) throw error;
    return false; // the error event has shown it
  }
}

async function openMicrophone() {
  speechWanted = true;
  try {
    await live.startMicrophone();
  } catch (error) {
    if (!(error instanceof LiveError)) throw error;
    if (error.code !== "cancelled") speechWanted = false;
    if (!["cancelled", "not_connected"].includes(error.code)) showError(error);
  }
}

async function talk() {
  const connecting = connect();
  speechWanted = true;
  if (!(await connecting) || live.status === "DISCONNECTED") return;
  if (voiceless) {
    ui.message.focus();
  } else {
    ui.microphone.focus();
    await openMicrophone();
  }
}

async function say(text) {
  if (login.open) return false;
  if (live.status === "DISCONNECTED" && !(await connect())) return false;
  try {
    live.sendText(text);
  } catch (error) {
    if (!(error instanceof LiveError)) throw error;
    notice("Still connecting: send it again in a moment.", "info");
    return false;
  }
  ui.welcome.hidden = true;
  view.follow();
  draw(conversation.typed(text));
  return true;
}

async function askAgain(turn) {
  const mark = (asked) => {
    turn.askedAgain = asked;
    draw(turn);
  };
  mark(true);
  ui.message.focus();
  if (!(await say(turn.user.text))) mark(false);
}

function startOver() {
  leftOff = null;
  live.disconnect();
  remember(SESSION_KEY, null);
  live = newLive(null);
  conversation = new Conversation();
  view.clear();
  ui.welcome.hidden = false;
  facts.clear();
  drawFacts();
}

ui.connect.addEventListener("click", () => {
  if (live.status === "DISCONNECTED") talk();
  else live.disconnect();
});

ui.newConversation.addEventListener("click", async () => {
  const wasTalking = live.microphone !== "off";
  const wasOpen = live.status !== "DISCONNECTED";
  clearNotices();
  startOver();
  closePanel();
  if (wasTalking) await talk();
  else if (wasOpen) await connect();
  else ui.message.focus();
});

ui.composer.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = ui.message.value.trim();
  if (text === "") return;
  ui.message.value = "";
  if (!(await say(text)) && ui.message.value === "") ui.message.value = text;
});

// Who is talking

/** Why the server refuses, in the words of an error. */
async function refusal(response) {
  const { error } = await response.json().catch(() => ({}));
  return serverError(error ?? { message: `The server answered with ${response.status}.` });
}

/** Tries a key on the list of tools, which everybody may see whom the server knows. */
async function refusalOf(tried) {
  try {
    const response = await requested("api/tools", tried);
    if (!response.ok) return await refusal(response);
    showTheseTools((await response.json()).tools);
    return null;
  } catch {
    return new LiveError("server_unreachable", `${UNREACHABLE}, then try again.`);
  }
}

function leaveOff(error) {
  if (live.status !== "DISCONNECTED") leftOff = { talking: speechWanted || live.microphone === "on", error };
}

/** The server asks, or no longer takes the answer that it has. */
function askWho(error) {
  leaveOff(error);
  const { message } = leftOff?.error ?? error;
  if (leftOff) withdraw(topicOf(leftOff.error));
  const again = credential !== null;
  keepCredential(null);
  closePanel();
  withdraw("kept");
  if (!again) login.ask();
  else login.ask(message, live.sessionId === null ? "Log in again." : "Log in again to go on with your conversation.");
  ui.toolsNone.textContent = "The tools are shown once you have logged in.";
}

async function loggedIn(key) {
  keepCredential(key);
  announce("You are logged in.");
  const before = leftOff;
  leftOff = null;
  const kept = live.sessionId === null ? null : await requested(sessionPath()).catch(() => null);
  if (kept?.status === 404) {
    startOver();
    ui.message.value = "";
    notice("The earlier conversation is over, or somebody else's; this is a new one.", "info");
  } else if (before?.talking) await talk();
  else if (before) await connect();
  else showMemory();
}

function keepCredential(key) {
  credential = key;
  remember(CREDENTIAL_KEY, key);
  showPerson("");
}

function showPerson(user) {
  ui.person.hidden = credential === null;
  ui.personWords.textContent = user ? `Logged in as ${user}.` : "Logged in.";
}

/** Nothing of what was said stays on the screen for whoever comes next. */
ui.logOut.addEventListener("click", () => {
  closePanel();
  startOver();
  clearNotices();
  remember(ASKED_KEY, null);
  ui.message.value = "";
  keepCredential(null);
  showTheseTools([]);
  showTools();
});

// Microphone, mute, push-to-talk

ui.microphone.addEventListener("click", () => {
  if (live.status === "DISCONNECTED") talk();
  else if (live.microphone === "off") openMicrophone();
  else if (!pushToTalk) live.mute(live.microphone === "on");
});

function press() {
  if (!pushToTalk || live.microphone !== "on" || live.talking) return;
  clearTimeout(silenceTimer);
  live.startActivity();
  showMicrophone();
}

function release() {
  if (!live.talking) return;
  live.endActivity();
  showMicrophone();
  clearTimeout(silenceTimer);
  silenceTimer = setTimeout(() => notice("Nothing was heard. Hold the button while you speak.", "info", "silence"), SILENCE_MS);
}

function heardSomething() {
  clearTimeout(silenceTimer);
  withdraw("silence");
}

ui.microphone.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  press();
  if (live.talking) ui.microphone.setPointerCapture(event.pointerId);
});
for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) ui.microphone.addEventListener(name, release);
ui.microphone.addEventListener("contextmenu", (event) => pushToTalk && event.preventDefault());

// Space belongs to whatever has the focus, apart from the microphone button and places that do nothing with it.
const talksWithSpace = (target) => target === ui.microphone || !target.closest?.("input, textarea, button, summary, a");

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && ui.panel.classList.contains("open")) closePanel();
  if (event.code !== "Space" || !pushToTalk || live.microphone !== "on" || !talksWithSpace(event.target)) return;
  event.preventDefault();
  if (!event.repeat) press();
});
document.addEventListener("keyup", (event) => {
  if (event.code !== "Space" || !live.talking) return;
  event.preventDefault();
  release();
});
addEventListener("blur", release);
document.addEventListener("visibilitychange", () => document.hidden && release());

ui.pushToTalk.addEventListener("click", async () => {
  pushToTalk = !pushToTalk;
  remember(TALK_KEY, pushToTalk ? "yes" : "no");
  showPushToTalk();
  if (live.status === "DISCONNECTED") return;
  // The way of talking is an option of the connection: the conversation is opened again with the other one.
  const wasTalking = live.microphone !== "off" || speechWanted;
  live.disconnect();
  if (wasTalking) await talk();
  else await connect();
});

// What the screen says

function draw(turn) {
  if (!turn) return;
  ui.welcome.hidden = true;
  view.draw(turn, conversation.turns);
}

/** What is open is not answered any more: no line, no model, or another conversation. */
function endTurns() {
  for (const turn of [...conversation.lost(), ...conversation.over()]) draw(turn);
}

function announce(text) {
  ui.announcements.textContent = text;
}

function showStatus(detail) {
  const { status } = detail;
  const before = ui.status.dataset.status;
  const wasCut = cut;
  cut = status === "RECONNECTING" && detail.attempt !== undefined;
  ui.status.dataset.status = status;
  ui.invitation.dataset.line = status === "DISCONNECTED" ? "none" : "open";
  if (status === "DISCONNECTED") endTurns();
  else if (cut && !wasCut) conversation.lost().forEach(draw);
  const goesOn = detail.resumed || detail.gapMs !== undefined;
  if (status === "CONNECTED" && goesOn) conversation.resumed();
  else if (status === "CONNECTED") conversation.over().forEach(draw);
  ui.statusWords.textContent = STATUS_WORDS[status] ?? status;
  ui.connect.textContent = status === "DISCONNECTED" ? "Connect" : "Disconnect";
  ui.connect.classList.toggle("primary", status === "DISCONNECTED");
  if (status === "DISCONNECTED") speechWanted = false;
  if (cut) showCut(detail);
  else withdraw("line");
  if (status === "CONNECTED") {
    leftOff = null;
    if (credential !== null) showUser();
    showTools(); // tools.yaml may have been edited since
    if ((wasCut || before === "CONNECTING") && remembered(SESSION_KEY) === live.sessionId) {
      behind = goesOn;
      showMissed();
    }
    remember(SESSION_KEY, live.sessionId);
    clearNotices("error");
    ui.statusDetail.textContent = [detail.assistant, UPSTREAM_WORDS[detail.upstream] ?? detail.upstream]
      .filter(Boolean)
      .join(" · ");
    if (detail.upstream) showUpstream(detail.upstream);
    setFact("Assistant", detail.assistant);
    setFact("Answered by", UPSTREAM_WORDS[detail.upstream] ?? detail.upstream);
    setFact("Model", detail.model);
    setFact("Memory", MEMORY_WORDS[detail.resumed ? "restored" : detail.memory] ?? "");
    setFact("Session", live.sessionId);
  } else if (status !== "RECONNECTING" || cut) {
    ui.statusDetail.textContent = "";
  }
  showMicrophone();
}

function showMicrophone() {
  const state = live.talking ? "talking" : live.microphone;
  const open = live.microphone !== "off";
  if (open) speechWanted = false;
  ui.microphone.dataset.state = state;
  ui.microphone.classList.toggle("hold", pushToTalk && open);
  if (!open) ui.microphoneWords.textContent = "Microphone";
  else if (pushToTalk) ui.microphoneWords.textContent = live.talking ? "Release to send" : "Hold to talk";
  else ui.microphoneWords.textContent = live.microphone === "muted" ? "Unmute" : "Mute";
  if (!open) setLevel(ui.levelIn, 0);
  if (live.status === "DISCONNECTED") setLevel(ui.levelOut, 0);
}

function showPushToTalk() {
  ui.pushToTalk.setAttribute("aria-checked", String(pushToTalk));
  showMicrophone();
}

function showLevel({ direction, rms }) {
  setLevel(direction === "in" ? ui.levelIn : ui.levelOut, rms);
}

/** Ears hear ratios: -60 dB is the left end, 0 dB the right one. */
function setLevel(bar, rms) {
  const part = rms > 0 ? Math.max(0, Math.min(1, 1 + (20 * Math.log10(rms)) / 60)) : 0;
  bar.style.setProperty("--level", part.toFixed(3));
  bar.setAttribute("aria-valuenow", String(Math.round(part * 100)));
}

/**
 * A notice with the same topic as an earlier one takes its place. `said`: what explains it to those who run the server;
 * `wait`: a countdown behind the text.
 */
function notice(text, kind, topic = text, said = "", wait = null) {
  const shown = [...ui.notices.children].find((one) => one.dataset.topic === topic);
  if (shown?.dataset.text === text) {
    shown.querySelector(".countdown")?.replaceWith(wait ?? "");
    return; // not announced again
  }
  withdraw(topic);
  const close = element("button", { type: "button", className: "plain", textContent: "Dismiss" });
  const made = element(
    "div",
    { className: "notice", role: kind === "error" ? "alert" : "status", dataset: { kind, topic, text } },
    element("p", {}, text, ...(wait ? [" ", wait] : [])),
    ...(said === "" ? [] : [details(said)]),
    close,
  );
  close.addEventListener("click", () => {
    made.remove();
    ui.message.focus();
  });
  ui.notices.append(made);
  while (ui.notices.children.length > 3) ui.notices.firstChild.remove();
}

const details = (text) =>
  element("details", { className: "said" }, element("summary", { textContent: "Details" }), element("p", { textContent: text }));

function withdraw(topic) {
  for (const shown of [...ui.notices.children]) if (shown.dataset.topic === topic) shown.remove();
}

function clearNotices(kind) {
  for (const shown of [...ui.notices.children]) if (!kind || shown.dataset.kind === kind) shown.remove();
}

function showError(error) {
  const { code, retryable } = error;
  if (["session_not_found", "session_ended"].includes(code) && live.status === "CONNECTING" && live.sessionId) return;
  if (cut && retryable) return; // why the line is not back yet is said in one place
  const words = inFull(error);
  if (PLAIN_CODES.includes(code)) withdraw("budget_near");
  if (error.retryAfterMs > 0 && code === "limited") {
    const wait = countdown(Date.now() + error.retryAfterMs, (left) => `You can try again in ${left}.`, "You can try again now.");
    notice(withoutWait(error.message), "error", topicOf(error), "", wait);
  } else if (!AWAY_CODES.includes(code) || live.status === "CONNECTED") notice(words, "error", topicOf(error));
  else notice(`${AWAY}. Press Connect to try again.`, "error", topicOf(error), words);
}

const topicOf = ({ message }) => `error: ${message}`;

const inFull = ({ code, message, requestId }) =>
  requestId && !PLAIN_CODES.includes(code) ? `${message} (${code}, request ${requestId})` : message;

/** The page is without a line and keeps trying: one notice, whatever is told meanwhile. */
function showCut({ error, delayMs }) {
  withdraw(topicOf(error));
  if (error.code === "limited") {
    const wait = countdown(Date.now() + delayMs, (left) => `This page tries again in ${left}.`, "This page tries again.");
    notice(withoutWait(error.message), "warning", "line", "", wait);
  } else if (error.code === "connection_lost") notice(`The server cannot be reached; ${KEEPS_TRYING}`, "warning", "line");
  else notice(`${AWAY}; ${KEEPS_TRYING}`, "warning", "line", inFull(error));
}

function showWarning({ code, message }) {
  if (code === "voice_unavailable") showVoice(message);
  else if (code === "tools_reload_failed") showBadTools(message);
  else notice(message, "warning", ["audio_dropped", "budget_near"].includes(code) ? code : message);
}

/** The server tells each mistake once. */
function showBadTools(mistake) {
  withdraw("tools_reload_failed");
  notice(BAD_TOOLS, "warning", "tools_reload_failed", mistake);
}

/** Why the simulator has no voice; null: it has one. Asked again until it has. */
function showVoice(reason) {
  const wasVoiceless = voiceless;
  voiceless = reason !== null;
  ui.simulatorVoice.textContent = reason ?? "";
  ui.invitation.dataset.way = voiceless ? "type" : "speak";
  clearTimeout(healthTimer);
  if (voiceless) healthTimer = setTimeout(askForVoice, HEALTH_MS);
  else if (wasVoiceless && speechWanted && live.status === "CONNECTED") openMicrophone();
}

async function askForVoice() {
  const asked = healthTimer;
  const health = await fetched("health").catch(() => null);
  if (asked !== healthTimer) return; // a newer word came meanwhile
  showVoice(health ? (health.upstreamNotice ?? null) : ui.simulatorVoice.textContent);
}

function showUpstream(upstream) {
  ui.simulator.hidden = upstream !== "simulator";
  showTitle();
}

/** Seen from another tab. */
function showTitle() {
  const name = ui.simulator.hidden ? "tornado-live" : "tornado-live (simulator)";
  document.title = asking ? `Yes or no? ${name}` : name;
}

function setFact(name, value) {
  if (value) facts.set(name, value);
  else facts.delete(name);
  drawFacts();
}

function drawFacts() {
  ui.facts.replaceChildren(
    ...[...facts].flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]),
  );
}

function openPanel() {
  ui.panel.classList.add("open");
  ui.panelOpen.setAttribute("aria-expanded", "true");
  ui.panelClose.focus();
}

function closePanel() {
  if (!ui.panel.classList.contains("open")) return;
  ui.panel.classList.remove("open");
  ui.panelOpen.setAttribute("aria-expanded", "false");
  ui.panelOpen.focus();
}

ui.panelOpen.addEventListener("click", openPanel);
ui.panelClose.addEventListener("click", closePanel);

// What the server says before anybody connects

function requested(path, key = credential) {
  const headers = { Accept: "application/json", ...(key === null ? {} : { Authorization: `Bearer ${key}` }) };
  return fetch(new URL(path, SERVER), { headers });
}

/** Null where the server has nothing to say. Where it wants to know who asks, so does the page. */
async function fetched(path) {
  const key = credential;
  const response = await requested(path, key);
  if (response.ok) return response.json();
  if (response.status === 401 && key === credential) askWho(await refusal(response));
  return null;
}

async function showServer() {
  try {
    const health = await fetched("health");
    if (health) showUpstream(health.upstream);
    if (health?.upstream === "simulator") showVoice(health.upstreamNotice ?? null);
    const { loaded = 0, error } = health?.tools ?? {};
    if (error && loaded > 0) showBadTools(error);
    else if (error) notice(NO_TOOLS, "warning", "tools_reload_failed", error);
  } catch {
    notice(`${UNREACHABLE}, then reload the page.`, "error");
  }
}

async function showTools() {
  try {
    const list = await fetched("api/tools");
    if (list) showTheseTools(list.tools);
    else if (!login.open) showTheseTools([]);
  } catch {
    ui.toolsNone.textContent = "The list of tools could not be loaded.";
  }
}

function showTheseTools(tools) {
  const list = JSON.stringify(tools);
  ui.toolsNone.textContent = "This server offers no tools.";
  if (list === listed) return; // whoever has the focus there keeps it
  listed = list;
  ui.toolsNone.hidden = tools.length > 0;
  ui.tools.replaceChildren(...tools.map(toolEntry));
  for (const { name, description = "" } of tools) purposes.set(name, firstSentence(description)[0]);
  const names = new Set(tools.map(({ name }) => name));
  ui.examples.replaceChildren(
    ...EXAMPLES.filter(([tool]) => names.has(tool)).map(([, question]) => element("li", {}, chip(question))),
  );
}

/** Descriptions are written for the model and may be long: the first sentence is what people need. */
const firstSentence = (text) => (/^(.*?[.!?])\s+(.*)$/s.exec(text) ?? [text, text, ""]).slice(1);

function toolEntry({ name, description = "" }) {
  const [first, rest] = firstSentence(description);
  const example = EXAMPLES.find(([tool]) => tool === name);
  return element(
    "li",
    {},
    element("code", { textContent: name }),
    element("p", { textContent: first }),
    ...(rest ? [element("details", {}, element("summary", { textContent: "More" }), element("p", { textContent: rest }))] : []),
    ...(example ? [chip(example[1])] : []),
  );
}

function chip(question) {
  const made = element("button", { type: "button", className: "chip", textContent: question });
  made.addEventListener("click", () => {
    closePanel();
    say(question);
  });
  return made;
}

const sessionPath = () => `api/sessions/${encodeURIComponent(live.sessionId)}`;

const fetchedSession = () => fetched(`${sessionPath()}?include=memory`).catch(() => null);

async function showUser() {
  const session = await fetched(sessionPath()).catch(() => null);
  if (session && session.sessionId === live.sessionId) showPerson(session.userId);
}

/** After a reload the earlier words are shown at once; the session itself is taken up by Connect. */
async function showMemory() {
  if (live.sessionId === null) return;
  const session = await fetchedSession();
  if (!session || live.status !== "DISCONNECTED") return;
  notice("Your conversation is kept. Press Connect to go on with it.", "info", "kept");
  const { memory } = session;
  if (memory.length === 0) return;
  conversation.recall(memory).forEach(draw);
  setFact("Memory", `${memory.length} earlier messages`);
}

/** What was said while the page was away is not said again, but written down. */
async function showMissed() {
  const asked = conversation;
  const session = await fetchedSession();
  if (session && asked === conversation) conversation.recall(session.memory).forEach(draw);
}

showPushToTalk();
showPerson("");
showServer();
showTools();
showMemory();
