/**
 * Client of a tornado-live server: speech both ways, text, tool calls, reconnects. No dependencies, no build step.
 *
 *     import { TornadoLive } from "./tornado-live.js";
 *
 *     const live = new TornadoLive();
 *     live.addEventListener("transcription", ({ detail }) => console.log(detail.isUser, detail.text));
 *     button.onclick = async () => {
 *       await live.connect();
 *       await live.startMicrophone();
 *     };
 *
 * Call `connect` from a click or key press: browsers let a page make sound only after a gesture.
 * The reference of options, events and errors is docs/client-module.md.
 *
 * @module tornado-live
 */

import { LiveError, closeError, serverError } from "./tornado-live/errors.js";
import { Questions } from "./tornado-live/questions.js";
import { Sound } from "./tornado-live/sound.js";

export { LiveError };

const INPUT_RATE = 16000;
const OUTPUT_RATE = 24000;
const FRAME_MS = 32;
const HELD_FRAMES = Math.floor(5000 / FRAME_MS); // what is said during a reconnect
const PRE_ROLL_FRAMES = 6; // people begin to speak while they press the key
const SOCKET_BACKLOG = 2 * INPUT_RATE * 2; // bytes of two seconds; speech older than that is of no use
const CONNECT_TIMEOUT_MS = 20000; // until the server's first word
const MODEL_TIMEOUT_MS = 60000; // from then on: it may dial the model side three times, ten seconds each
const TOKEN_TIMEOUT_MS = 20000;
const HEARTBEAT_MS = 15000;
const STABLE_MS = 10000;
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 10000;
const LONGEST_WAIT_MS = 60000; // nobody sits before an open microphone for longer than this
const ATTEMPTS = 8; // about 45 s, longer than the server keeps an open conversation for a cut line

// From here on the server's word is passed on as an event of the same name, with its data as the detail.
const PASSED_ON = new Set([
  "transcription",
  "text",
  "interrupted",
  "turn_complete",
  "tool_call",
  "tool_progress",
  "tool_result",
  "tool_cancelled",
  "usage",
  "warning",
]);

/** @enum {string} what the line is doing; the server's words for its own side come as `status` events */
const Phase = Object.freeze({
  IDLE: "idle", // nothing is wanted
  OPENING: "opening", // the socket is being opened, or `connect` was sent
  LIVE: "live", // the server said CONNECTED
  WAITING: "waiting", // lost; the next attempt is timed
});

/**
 * One conversation.
 *
 * Events (all are CustomEvents, `detail` in brackets): `status` {status, …}, `transcription` {text, isUser,
 * isFinal, turn}, `text` {text, turn}, `audio` {pcm, rate}, `level` {direction, rms, peak}, `playback` {playing,
 * bufferedMs, underruns}, `microphone` {state}, `interrupted` {turn}, `turn_complete` {turn, usage?}, `tool_call`,
 * `consent` {id, name, args?, label?, until, signal, answer}, `tool_progress`, `tool_result`, `tool_cancelled`, `usage`,
 * `warning` {code, message, count?}, `error` LiveError, `closed` {code, error}.
 */
export class TornadoLive extends EventTarget {
  #url;
  #sessionId;
  #token; // a string, or a function that is asked for one
  #asking = null; // the question for a token that still counts
  #shown; // the token of the last line
  #refused = null; // {token, error} of a token that the server did not take
  #phase = Phase.IDLE;
  #status = "DISCONNECTED";
  #options = {};
  #socket = null;
  #connecting = null; // {promise, resolve, reject} of the first connect
  #lastError = null; // the server's word before a close
  #attempt = 0;
  #timers = new Map();
  #heardAt = 0;
  #sound = null;
  #microphone = "off";
  #talking = false;
  #held = []; // messages and audio frames of a reconnect, in order
  #preRoll = [];
  #burst = 0; // bytes of what was held that the browser has not sent yet, at most
  #dropped = 0; // frames for which a slow line had no room
  #unheard = 0; // frames of a reconnect that were too many to hold
  #questions = new Questions({
    send: (message) => this.#send(message),
    askPerson: (detail) => this.#emit("consent", detail),
  });

  /**
   * @param {object} [settings]
   * @param {string|URL} [settings.url]  address of the server, `https://host` or `https://host/path`, or of its socket;
   *   default: `/ws` of the page's own host
   * @param {string|null} [settings.sessionId]  a conversation to go on with; without one the server makes one
   * @param {string|((asked: {sessionId: string|null, refused: LiveError|null}) => string|null|Promise<string|null>)}
   *   [settings.token]  who is talking, where the server asks: an API key, a JWT, or a ticket of the session. A function
   *   is asked before each line is opened, and once more when the server refused what it gave
   */
  constructor({ url = "/ws", sessionId = null, token = null } = {}) {
    super();
    this.#url = socketAddress(url);
    this.#sessionId = sessionId;
    this.#token = token;
  }

  /** The conversation's id; keep it to come back to the conversation later. Null before the first connect. */
  get sessionId() {
    return this.#sessionId;
  }

  /**
   * CONNECTING, CONNECTED, RECONNECTING, DRAINING or DISCONNECTED, as in the last `status` event. While the server
   * changes its connection to the model that is RECONNECTING too, and the line is as usable as before.
   */
  get status() {
    return this.#status;
  }

  /** "off", "on" or "muted". */
  get microphone() {
    return this.#microphone;
  }

  /** Whether an activity (push-to-talk) is open. */
  get talking() {
    return this.#talking;
  }

  /**
   * Opens the conversation. Must be called from a user's gesture, or the answers stay silent.
   *
   * @param {object} [options]  `connect.data` of the protocol: assistant, model, voice, language, modality,
   *   activity ("auto" or "manual"), systemInstruction; all optional
   * @returns {Promise<object>} the CONNECTED status: model, assistant, upstream, resumed, memory
   * @throws {LiveError} the first attempt is not repeated; later losses are
   */
  connect(options = {}) {
    if (this.#phase !== Phase.IDLE) {
      return Promise.reject(new LiveError("already_connected", "Already connected: disconnect first."));
    }
    this.#options = options;
    this.#attempt = 0;
    this.#lastError = null;
    this.#refused = null;
    this.#sound = new Sound({
      onSpeaker: (report) => this.#onSpeaker(report),
      onFailure: (error) => this.#emit("error", error),
    });
    this.#connecting = deferred();
    const { promise } = this.#connecting;
    this.#setStatus({ status: "CONNECTING" });
    this.#openLine();
    return promise;
  }

  /** Ends the talk and frees microphone and sound. The server keeps the conversation's memory. */
  disconnect() {
    if (this.#phase === Phase.IDLE) return;
    this.#send({ type: "disconnect" });
    this.#end(1000, null);
  }

  /**
   * Sends a typed user turn.
   * @param {string} text
   * @throws {LiveError} `not_connected`
   */
  sendText(text) {
    this.#demandLine();
    this.#sound.resume();
    this.#sendOrHold({ type: "text", data: { text } });
  }

  /**
   * Opens the microphone; speech then flows by itself, or during an activity with `activity: "manual"`.
   * @param {object} [options]
   * @param {string} [options.deviceId]  of navigator.mediaDevices.enumerateDevices(); default: the system's choice
   * @throws {LiveError} not_connected, microphone_denied, microphone_missing, microphone_busy, microphone_failed,
   *   insecure_context
   */
  async startMicrophone({ deviceId } = {}) {
    this.#demandLine();
    const sound = this.#sound;
    await sound.openMicrophone({
      deviceId,
      onFrame: (frame) => this.#onFrame(frame),
      onLost: () => this.#onMicrophoneLost(sound),
    });
    this.#setMicrophone("on");
  }

  /** Closes the microphone (its light goes out). */
  stopMicrophone() {
    if (this.#microphone === "off") return;
    this.endActivity();
    this.#sound.closeMicrophone();
    this.#stopStream();
    this.#setMicrophone("off");
  }

  /**
   * Keeps the microphone open and sends nothing.
   * @param {boolean} [muted]
   */
  mute(muted = true) {
    if (this.#microphone === "off" || muted === (this.#microphone === "muted")) return;
    if (muted) this.endActivity();
    this.#sound.muteMicrophone(muted);
    if (muted) this.#stopStream();
    this.#setMicrophone(muted ? "muted" : "on");
  }

  /**
   * Offers functions to the model, by the names of the tools that tools.yaml declares with `client: true`. Best before
   * `connect`: what is not offered when it is called is answered with an error. A name that is there is replaced.
   *
   * @param {Object<string, (args: object, call: {id: string, signal: AbortSignal}) => any>} functions  what they return,
   *   at once or later, is the result, any JSON; what they throw, `{error: message}`. `signal` aborts when nobody
   *   waits for the result any more
   */
  offer(functions) {
    this.#questions.offer(functions);
  }

  /** Push-to-talk, key down. Only with `activity: "manual"`. What was said in the last 200 ms is sent too. */
  startActivity() {
    this.#demandManual();
    if (this.#talking) return;
    this.#talking = true;
    this.#sound.resume();
    this.#sendOrHold({ type: "activity_start" });
    for (const pcm of this.#preRoll.splice(0)) this.#sendOrHold(pcm);
  }

  /** Push-to-talk, key up. Does nothing when no activity is open. */
  endActivity() {
    if (!this.#talking) return;
    this.#talking = false;
    this.#sendOrHold({ type: "activity_end" });
  }

  // The line

  #openLine() {
    this.#phase = Phase.OPENING;
    this.#lastError = null; // what was said on another line is no reason for the end of this one
    if (typeof this.#token === "function") this.#askForToken();
    else this.#openSocket(this.#token);
  }

  /** Before each line, since a ticket is good for one of them, and for a short time. */
  async #askForToken() {
    const asking = {};
    this.#asking = asking;
    this.#later("connect", TOKEN_TIMEOUT_MS, () => this.#onNoToken(new Error("it did not come in time")));
    let token;
    try {
      token = await this.#token({ sessionId: this.#sessionId, refused: this.#refused?.error ?? null });
    } catch (error) {
      if (asking === this.#asking) this.#onNoToken(error);
      return;
    }
    if (asking !== this.#asking) return; // too late, or nobody wants to connect any more
    this.#asking = null;
    const refused = this.#refused;
    if (refused === null || (token && token !== refused.token)) {
      this.#openSocket(token);
      return;
    }
    const { error } = refused;
    this.#emit("error", error);
    this.#end(4401, error);
  }

  #onNoToken(cause) {
    this.#asking = null;
    const error = cause instanceof LiveError ? cause : tokenFailed(cause);
    if (!this.#connecting && error.retryable) {
      this.#lost(error);
      return;
    }
    this.#emit("error", error);
    this.#end(1006, error);
  }

  #openSocket(token) {
    this.#shown = token;
    const address = new URL(this.#url);
    if (this.#sessionId) address.searchParams.set("sessionId", this.#sessionId);
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#sendConnect(token ?? undefined);
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code }) => this.#lineClosed(code);
    this.#socket = socket;
    this.#later("connect", CONNECT_TIMEOUT_MS, () => this.#abandonLine());
  }

  /** The server knows whose line it is from the first `connect` on it. */
  #sendConnect(token) {
    this.#phase = Phase.OPENING;
    this.#send({ type: "connect", data: { ...this.#options, audio: "binary", inputRate: INPUT_RATE, token } });
  }

  #receive(data) {
    this.#heardAt = performance.now();
    const message = data instanceof ArrayBuffer ? null : JSON.parse(data);
    // A pong, which the server also sends unasked to a line that is silent for long, brings the model no nearer.
    if (this.#phase === Phase.OPENING && message?.type !== "pong") {
      this.#later("connect", MODEL_TIMEOUT_MS, () => this.#abandonLine(4504));
    }
    if (message === null) {
      this.#play(data, OUTPUT_RATE);
      return;
    }
    if (message.sessionId) this.#sessionId = message.sessionId;
    const detail = message.data ?? {};
    switch (message.type) {
      case "status":
        this.#onServerStatus(detail);
        break;
      case "audio":
        this.#play(decodeBase64(detail.audio), rateOf(detail.mimeType));
        break;
      case "error":
        this.#onServerError(serverError(detail));
        break;
      case "pong":
        break;
      default:
        if (message.type === "interrupted") this.#sound.clear();
        if (message.type === "turn_complete") this.#sound.endOfTurn();
        if (PASSED_ON.has(message.type)) this.#emit(message.type, detail);
        if (message.type === "tool_call") this.#questions.put(detail);
        if (message.type === "tool_result") this.#questions.settle([detail.id]);
        if (message.type === "tool_cancelled") this.#questions.settle(detail.ids);
    }
  }

  #onServerStatus(detail) {
    if (detail.status === "CONNECTED") {
      this.#phase = Phase.LIVE;
      this.#lastError = null;
      this.#refused = null;
      this.#cancel("connect");
      this.#later("stable", STABLE_MS, () => (this.#attempt = 0));
      this.#beat();
      this.#setStatus(detail);
      const connecting = this.#connecting;
      this.#connecting = null;
      this.#sendHeld();
      connecting?.resolve(detail);
    } else if (detail.status === "DISCONNECTED") {
      // The model side is gone while the socket lives; `connect` may follow on it.
      if (this.#phase === Phase.LIVE) this.#lost(this.#lastError ?? closeError(4503));
    } else if (this.#phase === Phase.LIVE) {
      this.#setStatus(detail);
    }
  }

  #onServerError(error) {
    this.#lastError = error;
    if (this.#mayRenew(error)) {
      this.#renew(error);
      return;
    }
    this.#emit("error", error);
    if (this.#phase !== Phase.OPENING) return;
    if (this.#connecting || !error.retryable) this.#end(1000, error);
    else this.#lost(error);
  }

  #lineClosed(code) {
    const closed = closeError(code);
    const told = this.#lastError?.code === closed.code ? this.#lastError : null;
    const first = this.#connecting !== null;
    const error = told ?? (first && closed.code === "connection_lost" ? unreachable(this.#url) : closed);
    if (this.#mayRenew(error)) {
      this.#renew(error);
      return;
    }
    this.#detachSocket();
    if (!first && error.retryable) {
      // A line that was refused is closed too: that is one vain attempt, not two.
      if (this.#phase !== Phase.WAITING) this.#lost(error);
      return;
    }
    if (!told) this.#emit("error", error);
    this.#end(code, error);
  }

  /** Who gives tokens may have a better one than the one that was refused. */
  #mayRenew({ code }) {
    return code === "unauthenticated" && typeof this.#token === "function" && this.#refused === null;
  }

  #renew(error) {
    this.#refused = { token: this.#shown, error };
    this.#leaveLine();
    this.#detachSocket()?.close(1000);
    if (!this.#connecting) {
      this.#attempt += 1;
      this.#setStatus({ status: "RECONNECTING", attempt: this.#attempt, delayMs: 0, cause: error.code, error });
    }
    this.#openLine();
  }

  #leaveLine() {
    this.#cancel("heartbeat");
    this.#cancel("stable");
    this.#cancel("connect");
    this.#sound.endOfTurn();
    // A cut line ended the activity on the server's side: it is opened anew with what was said meanwhile.
    if (this.#phase === Phase.LIVE && this.#talking) this.#held.push({ type: "activity_start" });
  }

  /** Whatever was lost, the same session is asked for again: after a delay that grows, and is not in step with others. */
  #lost(error) {
    this.#leaveLine();
    if (!error.retryable || error.retryAfterMs > LONGEST_WAIT_MS) {
      this.#end(1006, error);
      return;
    }
    if (this.#attempt >= ATTEMPTS) {
      const last = error.code === "connection_lost" ? unreachable(this.#url) : error;
      if (last !== this.#lastError) this.#emit("error", last);
      this.#end(1006, last);
      return;
    }
    this.#phase = Phase.WAITING;
    const backoff = Math.min(FIRST_DELAY_MS * 2 ** this.#attempt, LONGEST_DELAY_MS) * (0.75 + Math.random() / 2);
    const delayMs = Math.max(backoff, error.retryAfterMs);
    this.#attempt += 1;
    this.#setStatus({ status: "RECONNECTING", attempt: this.#attempt, delayMs, cause: error.code, error });
    this.#later("reconnect", delayMs, () => this.#reconnect());
    if (error.retryAfterMs === 0) addEventListener("online", this.#reconnect, { once: true });
  }

  #reconnect = () => {
    if (this.#phase !== Phase.WAITING) return;
    this.#cancel("reconnect");
    removeEventListener("online", this.#reconnect);
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.#later("connect", CONNECT_TIMEOUT_MS, () => this.#abandonLine());
      this.#sendConnect();
    } else {
      this.#openLine();
    }
  };

  /** A dead line closes only minutes later: it is treated as cut at once. */
  #abandonLine(code = 1006) {
    this.#socket.close();
    this.#lineClosed(code);
  }

  #beat() {
    const askedAt = performance.now();
    this.#send({ type: "ping" });
    this.#later("heartbeat", HEARTBEAT_MS, () => {
      if (this.#heardAt < askedAt) this.#abandonLine();
      else this.#beat();
    });
  }

  #detachSocket() {
    const socket = this.#socket;
    this.#socket = null;
    this.#questions.lineLost();
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
    return socket;
  }

  #end(code, error) {
    this.#phase = Phase.IDLE;
    this.#asking = null;
    for (const name of [...this.#timers.keys()]) this.#cancel(name);
    removeEventListener("online", this.#reconnect);
    this.#detachSocket()?.close(1000);
    this.#held = [];
    this.#unheard = 0;
    this.#preRoll = [];
    this.#talking = false;
    this.#questions.end();
    this.#sound.close();
    this.#sound = null;
    const connecting = this.#connecting;
    this.#connecting = null;
    this.#setMicrophone("off");
    this.#setStatus({ status: "DISCONNECTED" });
    this.#emit("closed", { code, error });
    connecting?.reject(error ?? new LiveError("cancelled", "Disconnected before the conversation opened."));
  }

  // Sound

  #play(pcm, rate) {
    this.#emit("audio", { pcm, rate });
    this.#sound.play(pcm.slice(0), rate);
  }

  #onSpeaker({ dropped, rms, peak, playing, bufferedMs, underruns }) {
    if (dropped) {
      this.#emit("warning", { code: "audio_dropped", message: "More speech came than the page can hold.", count: 1 });
      return;
    }
    this.#emit("level", { direction: "out", rms, peak });
    this.#emit("playback", { playing, bufferedMs, underruns });
  }

  #onFrame({ pcm, rms, peak }) {
    const silent = this.#microphone === "muted";
    this.#emit("level", { direction: "in", rms: silent ? 0 : rms, peak: silent ? 0 : peak });
    if (silent) return;
    if (this.#options.activity === "manual" && !this.#talking) {
      this.#preRoll.push(pcm);
      if (this.#preRoll.length > PRE_ROLL_FRAMES) this.#preRoll.shift();
      return;
    }
    this.#sendOrHold(pcm);
  }

  #onMicrophoneLost(sound) {
    if (sound !== this.#sound || this.#microphone === "off") return;
    this.stopMicrophone();
    this.#emit(
      "error",
      new LiveError("microphone_lost", "The microphone was unplugged or switched off. Turn it on again, or type instead."),
    );
  }

  /** Without a word the model side would wait for the rest of the sentence. */
  #stopStream() {
    this.#preRoll = [];
    if (this.#options.activity !== "manual") this.#sendOrHold({ type: "audio_end" });
  }

  // Sending

  #sendOrHold(item) {
    // A line that is being closed looks alive until its close event.
    if (this.#phase === Phase.LIVE && this.#socket.readyState === WebSocket.OPEN) {
      this.#sendNow(item);
      return;
    }
    this.#held.push(item);
    const frames = this.#held.filter((held) => held instanceof ArrayBuffer).length;
    if (frames > HELD_FRAMES) {
      this.#held.splice(this.#held.findIndex((held) => held instanceof ArrayBuffer), 1);
      this.#unheard += 1;
    }
  }

  /** All at once, which says nothing about how fast the line is: it does not count as its backlog. */
  #sendHeld() {
    for (const held of this.#held.splice(0)) {
      if (held instanceof ArrayBuffer) this.#socket.send(held);
      else this.#send(held);
    }
    this.#burst = this.#socket.bufferedAmount;
    if (this.#unheard === 0) return;
    const message = "The server could not be reached for a while; what you said meanwhile was not heard.";
    this.#emit("warning", { code: "audio_dropped", message, count: this.#unheard });
    this.#unheard = 0;
  }

  #sendNow(item) {
    if (!(item instanceof ArrayBuffer)) {
      this.#send(item);
      return;
    }
    this.#burst = Math.min(this.#burst, this.#socket.bufferedAmount);
    if (this.#socket.bufferedAmount - this.#burst > SOCKET_BACKLOG) this.#countDropped();
    else this.#socket.send(item);
  }

  #send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(JSON.stringify(this.#sessionId ? { ...message, sessionId: this.#sessionId } : message));
  }

  /** Told once a second, not fifty times. */
  #countDropped() {
    this.#dropped += 1;
    if (this.#timers.has("dropped")) return;
    this.#later("dropped", 1000, () => {
      const message = "The line is too slow: some of what you said did not get through.";
      this.#emit("warning", { code: "audio_dropped", message, count: this.#dropped });
      this.#dropped = 0;
    });
  }

  // State

  #demandLine() {
    if (this.#phase === Phase.IDLE || this.#connecting) throw new LiveError("not_connected", "Not connected: connect first.");
  }

  #demandManual() {
    this.#demandLine();
    if (this.#options.activity !== "manual") {
      throw new LiveError("not_manual", 'Push-to-talk needs connect({ activity: "manual" }).');
    }
  }

  #setStatus(detail) {
    this.#status = detail.status;
    this.#emit("status", detail);
  }

  #setMicrophone(state) {
    if (state === this.#microphone) return;
    this.#microphone = state;
    this.#emit("microphone", { state });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #later(name, delayMs, action) {
    this.#cancel(name);
    const timer = setTimeout(() => {
      this.#timers.delete(name);
      action();
    }, delayMs);
    this.#timers.set(name, timer);
  }

  #cancel(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

/** A server's socket is at `ws` below its address; what begins with ws is a socket's own address. */
function socketAddress(url) {
  const address = new URL(url, location.href);
  if (address.protocol.startsWith("http") && !address.pathname.endsWith("/ws")) {
    address.pathname = `${address.pathname.replace(/\/+$/, "")}/ws`;
  }
  address.protocol = address.protocol.replace("http", "ws");
  return address;
}

/** Browsers do not tell a page whether a socket was refused or nobody was there. */
function unreachable(address) {
  const door = address.host === location.host ? "this page came from it" : `its ALLOWED_ORIGINS has ${location.origin}`;
  const message = `The server cannot be reached. Check that it is running and that ${door}, then connect again.`;
  return new LiveError("server_unreachable", message, { retryable: true });
}

function tokenFailed(cause) {
  const message = `The page could not get a token for the server: ${cause?.message ?? cause}`;
  return new LiveError("token_failed", message, { retryable: true, cause });
}

function deferred() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}

function decodeBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
}

function rateOf(mimeType) {
  return Number(/rate=(\d+)/.exec(mimeType ?? "")?.[1] ?? OUTPUT_RATE);
}
