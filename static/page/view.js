/** Draws a Conversation. Text reaches the document through textContent only. */

const OUTCOMES = {
  asking: "waits for your answer",
  running: "running",
  ok: "done",
  failed: "failed",
  declined: "you said no",
  unheeded: "not answered",
  cancelled: "cancelled",
  unknown: "not known",
  remembered: "earlier",
};

// The tool codes of the protocol, in words.
const FAILURES = {
  unknown_tool: "There is no such tool.",
  invalid_arguments: "The arguments did not fit.",
  not_allowed: "This is not allowed.",
  refused: "It was refused.",
  limited: "It was used too often for now.",
  timeout: "It took too long.",
  unreachable: "It could not be reached.",
  http_error: "The service answered with an error.",
  bad_answer: "The service answered something that could not be read.",
  too_large: "The answer was too large.",
  cancelled: "It was cancelled.",
  failed: "It failed. The server's log says why.",
};

// The same for the closed card.
const REASONS = {
  unknown_tool: "no such tool",
  invalid_arguments: "arguments did not fit",
  not_allowed: "not allowed",
  refused: "refused",
  limited: "used too often",
  timeout: "took too long",
  unreachable: "not reachable",
  http_error: "the service reported an error",
  bad_answer: "answer could not be read",
  too_large: "answer too large",
  cancelled: "cancelled",
};

export function element(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

export function duration(milliseconds) {
  if (milliseconds === undefined) return "";
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

const short = (value) => (typeof value === "string" ? value : JSON.stringify(value));

export class ConversationView {
  #list;
  #scroller;
  #latest;
  #askAgain;
  #drawn = new Map(); // Turn -> its element
  #following = true;
  #height = 0;

  /** `askAgain(turn)` is called when somebody wants a question asked again that was not answered. */
  constructor({ list, scroller, latest, askAgain }) {
    this.#list = list;
    this.#scroller = scroller;
    this.#latest = latest;
    this.#askAgain = askAgain;
    scroller.addEventListener("scroll", () => {
      if (scroller.clientHeight !== this.#height) return; // nobody scrolled: the room has changed, see below
      this.#following = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
      latest.hidden = this.#following;
    });
    latest.addEventListener("click", () => this.follow());
    new ResizeObserver(() => {
      this.#height = scroller.clientHeight;
      if (this.#following) this.follow();
    }).observe(scroller);
  }

  clear() {
    this.#drawn.clear();
    this.#list.replaceChildren();
    this.follow();
  }

  follow() {
    this.#following = true;
    this.#latest.hidden = true;
    // Without a turn there is a welcome, which is read from its beginning.
    this.#scroller.scrollTop = this.#drawn.size > 0 ? this.#scroller.scrollHeight : 0;
  }

  /** Draws one turn of `turns` (all of them, for the order). */
  draw(turn, turns) {
    if (!turn) return;
    let drawn = this.#drawn.get(turn);
    if (!drawn) {
      drawn = new TurnView(() => this.#askAgain(turn));
      this.#drawn.set(turn, drawn);
      const next = turns.slice(turns.indexOf(turn) + 1).find((other) => this.#drawn.has(other));
      this.#list.insertBefore(drawn.root, next ? this.#drawn.get(next).root : null);
    }
    const at = turns.indexOf(turn);
    drawn.update(turn, turns[at + 1]);
    if (at > 0) this.#drawn.get(turns[at - 1])?.update(turns[at - 1], turn);
    if (this.#following) this.follow();
    else this.#latest.hidden = false;
  }
}

class TurnView {
  #user = element("p", { className: "user", hidden: true });
  #tools = element("div", { className: "calls" });
  #model = element("p", { className: "model", hidden: true });
  #note = element("p", { className: "note", textContent: "Interrupted", hidden: true });
  #again = element("button", { type: "button", className: "plain", textContent: "Ask again" });
  #unanswered = element("p", { className: "note unanswered", textContent: "Not answered", hidden: true }, this.#again);
  #cards = [];
  root = element("li", { className: "turn" }, this.#user, this.#tools, this.#model, this.#note, this.#unanswered);

  constructor(askAgain) {
    this.#again.addEventListener("click", askAgain);
  }

  update(turn, next) {
    this.root.dataset.turn = turn.number ?? "";
    said(this.#user, "You said: ", turn.user);
    said(this.#model, "Assistant said: ", turn.model);
    this.#note.hidden = !turn.interrupted || next?.goesOn === true;
    this.#unanswered.hidden = !turn.unanswered;
    this.#again.hidden = turn.askedAgain;
    this.#again.ariaLabel = `Ask again: ${turn.user.text}`;
    turn.tools.forEach((tool, i) => {
      if (!this.#cards[i]) {
        this.#cards[i] = new ToolCard(tool);
        this.#tools.append(this.#cards[i].root);
      }
      this.#cards[i].update(tool);
    });
  }
}

function said(paragraph, speaker, { text }) {
  paragraph.hidden = text === "";
  if (!paragraph.lastElementChild) {
    paragraph.append(element("span", { className: "hidden", textContent: speaker }), element("span", { className: "words" }));
  }
  paragraph.lastElementChild.textContent = text;
}

class ToolCard {
  #state = element("span", { className: "state" });
  #sample = element("span", { className: "sample", textContent: "sample data", hidden: true });
  #time = element("span", { className: "time" });
  #progress = element("span", { className: "progress", hidden: true });
  #outcome = element("p", { className: "outcome" });
  #result = element("pre", { className: "result", hidden: true });
  root;

  constructor({ name, args, label }) {
    const brief = Object.entries(args ?? {})
      .map(([key, value]) => `${key}: ${short(value)}`)
      .join(", ");
    this.root = element(
      "details",
      { className: "call", dataset: { tool: name } },
      element(
        "summary",
        {},
        element("span", { className: "mark", ariaHidden: "true" }),
        element("code", { className: "name", textContent: label || name }),
        element("span", { className: "brief", textContent: brief }),
        this.#sample,
        this.#state,
        this.#time,
        this.#progress,
      ),
      element(
        "div",
        { className: "inside" },
        this.#outcome,
        element("h3", { textContent: "Arguments" }),
        element("pre", { className: "arguments", textContent: args ? JSON.stringify(args, null, 2) : "not shown" }),
        this.#result,
      ),
    );
  }

  update({ state, progress, durationMs, sample, summary, result, error, sameAs }) {
    const notMade = ["declined", "unheeded"].includes(state) || sameAs !== undefined;
    this.root.dataset.state = state;
    this.#state.textContent = state === "failed" && REASONS[error] ? `failed: ${REASONS[error]}` : OUTCOMES[state];
    if (sameAs !== undefined && state === "ok") this.#state.textContent = "not made again";
    this.#time.textContent = notMade ? "" : duration(durationMs);
    this.#progress.textContent = progress;
    this.#progress.hidden = state !== "running" || !progress;
    this.#sample.hidden = !sample;
    this.#outcome.textContent = outcome({ state, summary, error, sameAs });
    this.#outcome.hidden = this.#outcome.textContent === "";
    this.#result.hidden = result === undefined;
    if (result !== undefined) this.#result.textContent = JSON.stringify(result, null, 2);
  }
}

function outcome({ sameAs, ...call }) {
  const again = sameAs === undefined ? "" : "The same was asked for again: this is the answer of the call before it.";
  return [again, ended(call)].filter(Boolean).join(" ");
}

function ended({ state, summary, error }) {
  if (state === "running") return "";
  if (state === "asking") return "It is made only if you say yes.";
  if (state === "declined") return "It was not made.";
  if (state === "unheeded") return "It was not made: nobody said yes in time.";
  if (state === "failed") return [FAILURES[error] ?? FAILURES.failed, summary].filter(Boolean).join(" ");
  if (state === "cancelled") return "Nobody waits for it any more: the conversation went on.";
  if (state === "unknown") return "The line was lost before the tool ended.";
  return summary ?? "";
}
