/**
 * What the server asks of the page: to run a function, or for a person's consent. No DOM, no socket.
 *
 * Each question gets one answer. It is kept until the server says how the call ended: a line that is cut may have lost
 * it, and then the server asks again, for which nothing is run twice and nobody is asked twice.
 */

const CONSENT_MS = 30000; // a longer silence is a no
const LARGEST = 250000; // bytes of a result; the server takes messages of 256 KiB

class Question {
  abort = new AbortController();
  answer = null; // the message
  timer = null;
  onLine = true; // asked on the line that is open now

  constructor(kind) {
    this.kind = kind;
  }
}

export class Questions {
  #functions = new Map();
  #open = new Map(); // id of the call -> Question
  #send;
  #askPerson;

  /**
   * @param {(message: object) => void} send  an answer, to the server
   * @param {(detail: object) => void} askPerson  with the detail of the event `consent`
   */
  constructor({ send, askPerson }) {
    this.#send = send;
    this.#askPerson = askPerson;
  }

  /** @param {Object<string, Function>} functions */
  offer(functions) {
    for (const [name, act] of Object.entries(functions)) {
      if (typeof act !== "function") throw new TypeError(`${name}: a function is needed`);
      this.#functions.set(name, act);
    }
  }

  /** A `tool_call` has come; one that asks nothing is none of our business. */
  put(call) {
    const kind = call.confirm ? "confirm" : call.client ? "client" : null;
    if (kind === null) return;
    const known = this.#open.get(call.id);
    if (known?.kind === kind) {
      known.onLine = true;
      if (known.answer) this.#send(known.answer);
      return;
    }
    this.settle([call.id]); // consent was given, and what was agreed to is to be run here
    const question = new Question(kind);
    this.#open.set(call.id, question);
    if (kind === "confirm") this.#ask(call, question);
    else this.#run(call, question);
  }

  /** The calls have ended: nobody waits for their answers. */
  settle(ids) {
    for (const id of ids) {
      const question = this.#open.get(id);
      if (!question) continue;
      this.#open.delete(id);
      clearTimeout(question.timer);
      question.abort.abort();
    }
  }

  /** What is answered from now on reaches nobody until it is asked again. */
  lineLost() {
    for (const question of this.#open.values()) question.onLine = false;
  }

  /** The conversation is over. */
  end() {
    this.settle([...this.#open.keys()]);
  }

  #ask({ id, name, args, label }, question) {
    const answer = (ok) => {
      if (question.abort.signal.aborted) return;
      this.#answer(question, { type: "tool_confirm", data: { id, ok: ok === true } });
      clearTimeout(question.timer);
      question.abort.abort();
    };
    question.timer = setTimeout(() => question.abort.abort(), CONSENT_MS);
    this.#askPerson({ id, name, args, label, until: Date.now() + CONSENT_MS, signal: question.abort.signal, answer });
  }

  async #run({ id, name, args = {} }, question) {
    const { signal } = question.abort;
    let response;
    try {
      const act = this.#functions.get(name);
      if (!act) throw new Error(`This page has no function "${name}".`);
      response = sendable(await act(args, { id, signal }));
    } catch (error) {
      response = { error: (error instanceof Error ? error.message : String(error)) || "It failed." };
    }
    if (!signal.aborted) this.#answer(question, { type: "tool_result", data: { id, response } });
  }

  #answer(question, message) {
    question.answer = message;
    if (question.onLine) this.#send(message);
  }
}

/** As it is now: what a function changes in it later is not sent. */
function sendable(value) {
  const text = JSON.stringify(value ?? null);
  if (text === undefined) throw new Error("The result is not JSON.");
  if (new TextEncoder().encode(text).length > LARGEST) throw new Error("The result is too large.");
  return JSON.parse(text);
}
