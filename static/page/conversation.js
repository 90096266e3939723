/**
 * What was said, in turns, from the events of the client module. No DOM: a value that the view draws.
 *
 * Within a turn the order is user, tools, model, whatever came first. Pieces are replaced by the final text.
 */

const joined = (before, piece) =>
  before && piece && !/\s$/.test(before) && /^[\p{L}\p{N}]/u.test(piece) && /[.!?]$/.test(before)
    ? `${before} ${piece}`
    : before + piece;

const words = (text) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu)?.join(" ") ?? "";

/** Some servers transcribe typed words too: those are not said a second time. */
const repeats = (typed, said) => typed !== "" && words(typed).startsWith(words(said));

/** Memory keeps a call as `name({"argument": 1}): summary`; a long one is cut off somewhere. */
function rememberedCall(text) {
  const [, name, rest] = /^([^\s(]+)\((.*)$/s.exec(text) ?? [null, "tool", text];
  for (let end = rest.indexOf("): "); end >= 0; end = rest.indexOf("): ", end + 1)) {
    try {
      return { name, args: JSON.parse(rest.slice(0, end)), summary: rest.slice(end + 3) };
    } catch {
      // a text among the arguments holds the same three characters
    }
  }
  return { name, summary: rest };
}

const RUNS = new Set(["running", "asking", "declined"]); // its end is still to come

// How a call ends that was not agreed to, by what it was before.
const NOT_AGREED = { declined: "declined", asking: "unheeded" };

export class Turn {
  number;
  typed = "";
  said = { text: "" };
  tools = [];
  model = { text: "" };
  interrupted = false;
  complete = false;
  lost = false; // the line went before the turn ended
  over = false; // ... and nobody goes on with it
  askedAgain = false;

  constructor(number) {
    this.number = number;
  }

  get open() {
    return !this.complete && !this.interrupted && !this.lost;
  }

  get user() {
    const said = repeats(this.typed, this.said.text) ? "" : this.said.text;
    return { text: [this.typed, said].filter(Boolean).join("\n") };
  }

  get unanswered() {
    return this.over && this.user.text !== "" && this.model.text === "";
  }

  /** The model talks on without having been asked anything new. */
  get goesOn() {
    return this.user.text === "" && (this.model.text !== "" || this.tools.length > 0);
  }
}

export class Conversation {
  turns = [];
  #cut = []; // the turns that the last loss closed

  /** The next turn of which the server did not speak yet takes the number when it does. */
  #numbered(number, said = null) {
    const known = this.turns.find((turn) => turn.number === number);
    if (known) return known;
    const waiting = this.#waiting();
    const highest = Math.max(0, ...this.turns.map((turn) => turn.number ?? 0));
    if (waiting && number > highest && (said === null || waiting.typed === "" || repeats(waiting.typed, said))) {
      waiting.number = number;
      return waiting;
    }
    const turn = new Turn(number);
    const at = this.turns.findIndex((other) => other.number !== null && other.number > number);
    this.turns.splice(at < 0 ? this.turns.length : at, 0, turn);
    return turn;
  }

  /** The oldest turn that was typed, or began with a tool, and of which the server did not speak yet. */
  #waiting() {
    const last = this.turns.findLastIndex((turn) => turn.number !== null);
    return this.turns.slice(last + 1).find((turn) => turn.open);
  }

  /** Tool calls carry no number: they belong to the newest turn the server speaks of, or to the one it begins. */
  #current() {
    const newest = this.turns.findLast((turn) => turn.number !== null);
    return newest?.open ? newest : (this.#waiting() ?? this.#append());
  }

  #append() {
    const turn = new Turn(null);
    this.turns.push(turn);
    return turn;
  }

  typed(text) {
    const turn = this.#append();
    turn.typed = text;
    return turn;
  }

  transcription({ text, isUser, isFinal, turn: number }) {
    const turn = this.#numbered(number, isUser ? text : null);
    const side = isUser ? turn.said : turn.model;
    side.text = isFinal ? text : joined(side.text, text);
    return turn;
  }

  text({ text, turn: number }) {
    const turn = this.#numbered(number);
    turn.model.text += text;
    return turn;
  }

  interrupted({ turn: number }) {
    const turn = this.#numbered(number);
    turn.interrupted = true;
    return turn;
  }

  turnComplete({ turn: number }) {
    const turn = this.#numbered(number);
    turn.complete = true;
    return turn;
  }

  /** A call that asks for something is told again when the page comes back, and when it has got its consent. */
  toolCall({ id, name, args, label, confirm = false, sameAs }) {
    const change = (tool) => ({ ...tool, state: confirm ? (tool.answered ?? "asking") : "running" });
    const open = ({ id: other, state }) => other === id && (RUNS.has(state) || state === "unknown");
    if (this.turns.some(({ tools }) => tools.some(open))) return this.#tool(id, (tool) => (open(tool) ? change(tool) : tool));
    const turn = this.#current();
    turn.tools.push(change({ id, name, args, label, sameAs, progress: "" }));
    return turn;
  }

  /** The person has said whether the call may be made. */
  toolAnswered(id, ok) {
    const answered = ok ? "running" : "declined";
    return this.#tool(id, (tool) => ({ ...tool, answered, state: tool.state === "asking" ? answered : tool.state }));
  }

  toolProgress({ id, text }) {
    return this.#tool(id, (tool) => ({ ...tool, progress: text }));
  }

  toolResult({ id, ok, durationMs, sample = false, summary, result, error }) {
    return this.#tool(id, (tool) => {
      const state = ok ? "ok" : error === "refused" ? (NOT_AGREED[tool.state] ?? "failed") : "failed";
      return { ...tool, state, durationMs, sample, summary, result, error };
    });
  }

  toolCancelled({ ids }) {
    return ids.map((id) => this.#tool(id, (tool) => ({ ...tool, state: "cancelled" }))).find(Boolean);
  }

  #tool(id, change) {
    const turn = this.turns.findLast((candidate) => candidate.tools.some((tool) => tool.id === id));
    if (turn) turn.tools = turn.tools.map((tool) => (tool.id === id ? change(tool) : tool));
    return turn;
  }

  /** The line is gone: what was open ends here, unless the same conversation comes back. */
  lost() {
    this.#cut = this.turns.filter((turn) => turn.open);
    const changed = this.turns.filter((turn) => turn.open || turn.tools.some((tool) => RUNS.has(tool.state)));
    for (const turn of this.#cut) turn.lost = true;
    for (const turn of changed) {
      turn.tools = turn.tools.map((tool) => (RUNS.has(tool.state) ? { ...tool, state: "unknown" } : tool));
    }
    return changed;
  }

  /** The line is back and the conversation did not notice: what the loss closed goes on. */
  resumed() {
    for (const turn of this.#cut.splice(0)) turn.lost = false;
  }

  /** The conversation is another one, or none: what the loss closed stays as it is. */
  over() {
    const ended = this.#cut.splice(0);
    for (const turn of ended) turn.over = true;
    return ended;
  }

  /**
   * What the server remembers: of an earlier visit, or said while the line was down. It has finished turns only.
   * @param {Array<{role: string, text: string, turn: number}>} memory  oldest first
   */
  recall(memory) {
    const seen = (turn) => turn.tools.length > 0 && turn.tools.every(({ state }) => state !== "unknown");
    const complete = new Set(this.turns.filter(seen));
    const changed = new Set();
    for (const { role, text, turn: number } of memory) {
      const turn = role === "user" ? this.#remembered(number, text) : this.#numbered(number);
      if (!changed.has(turn) && !complete.has(turn)) turn.tools = [];
      const typed = role === "user" && this.#typedHere(turn, text);
      if (role === "user" && turn.typed && !typed && !repeats(turn.typed, text)) changed.add(this.#handOn(turn));
      changed.add(turn);
      turn.complete = true;
      if (typed) continue;
      if (role !== "tool") turn[role === "user" ? "said" : "model"] = { text };
      else if (!complete.has(turn)) turn.tools.push({ id: null, state: "remembered", ...rememberedCall(text) });
    }
    return [...changed];
  }

  /** A question that was typed and lost is the one that the server remembers, though it never gave it a number. */
  #remembered(number, text) {
    const unknown = this.turns.every((turn) => turn.number !== number);
    const lost = this.turns.find((turn) => turn.number === null && turn.lost && this.#typedHere(turn, text));
    if (unknown && lost) lost.number = number;
    return this.#numbered(number, text);
  }

  /** What was typed before anything was answered is one message in memory. */
  #typedHere(turn, text) {
    let typed = "";
    for (const each of this.turns.slice(this.turns.indexOf(turn))) {
      if (each.typed === "" || typed === words(text)) break;
      typed = words(`${typed} ${each.typed}`);
    }
    return typed !== "" && typed === words(text);
  }

  /** The turn was open when the page came back and had begun with other words: what was typed since is the next. */
  #handOn(turn) {
    const at = this.turns.indexOf(turn) + 1;
    if (at === this.turns.length || this.turns[at].user.text) this.turns.splice(at, 0, new Turn(null));
    this.turns[at].typed = turn.typed;
    turn.typed = "";
    return this.turns[at];
  }
}
