/** Asks the person whether a call may be made: one question at a time, beside the conversation, which goes on. */

import { element } from "./view.js";

// A press that was meant for something else, or the second of a double click, is no answer.
const DEAF_MS = 500;
const LATE_S = 10;
const LONG = 80; // letters

// What could show an argument as something else than it is: control characters, and those that turn the direction.
const DISGUISES = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

const visible = (text) =>
  text.replace(DISGUISES, (sign) => `\\u${sign.codePointAt(0).toString(16).padStart(4, "0")}`);

/** `sendMoney`, `send_money` and `bank:send-money` are words too. */
function inWords(name) {
  return visible(name).replace(/([\p{Ll}\p{N}])(\p{Lu})/gu, "$1 $2").split(/[\s_:.-]+/u).filter(Boolean).join(" ").toLowerCase();
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function valueInWords(value) {
  if (value === "") return "(empty)";
  if (value === null) return "(nothing)";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return visible(typeof value === "string" ? value : JSON.stringify(value, null, 2));
}

function countdown(seconds) {
  return `${seconds} ${seconds === 1 ? "second" : "seconds"} left, then it is a no.`;
}

export class ConsentView {
  #place;
  #alarm;
  #describe;
  #answered;
  #resting;
  #changed;
  #waiting = []; // questions in the order they came; the first one is shown
  #shown = null;
  #cameFrom = null;

  /**
   * @param {object} parts
   * @param {Element} parts.place  where the question appears
   * @param {Element} parts.alarm  an assertive live region
   * @param {(name: string) => string} parts.describe  what a tool does, in a sentence; may be empty
   * @param {(id: string, ok: boolean) => void} parts.answered
   * @param {() => Element} parts.resting  what has the focus when nothing else should
   * @param {(open: boolean) => void} parts.changed  whether a question is on the screen
   */
  constructor({ place, alarm, describe, answered, resting, changed }) {
    this.#place = place;
    this.#alarm = alarm;
    this.#describe = describe;
    this.#answered = answered;
    this.#resting = resting;
    this.#changed = changed;
  }

  /** @param {object} question  the detail of the event `consent` */
  ask(question) {
    this.#waiting.push(question);
    question.signal.addEventListener("abort", () => this.#withdraw(question), { once: true });
    if (this.#waiting.length === 1) this.#show(question);
    else this.#shown.count(this.#waiting.length - 1);
  }

  #withdraw(question) {
    this.#waiting = this.#waiting.filter((other) => other !== question);
    if (this.#shown.question !== question) {
      this.#shown.count(this.#waiting.length - 1);
      return;
    }
    const hadFocus = this.#shown.root.contains(document.activeElement);
    this.#shown.end();
    this.#shown = null;
    this.#alarm.textContent = "";
    this.#changed(this.#waiting.length > 0);
    if (this.#waiting.length > 0) {
      this.#show(this.#waiting[0], hadFocus);
    } else if (hadFocus) {
      const back = this.#cameFrom;
      (back?.isConnected && back !== document.body && back.checkVisibility() ? back : this.#resting()).focus();
    }
  }

  /** Takes the focus, but not from somebody who is writing: the next key would be lost, or an answer. */
  #show(question, follows = false) {
    const at = document.activeElement;
    const writing = !follows && at?.matches("input, textarea") && at.value !== "";
    const card = new Card(question, this.#describe(question.name), {
      choose: (ok) => {
        this.#answered(question.id, ok);
        question.answer(ok);
      },
      late: (text) => (this.#alarm.textContent = text),
    });
    this.#shown = card;
    card.count(this.#waiting.length - 1);
    this.#place.replaceChildren(card.root);
    this.#changed(true);
    if (writing) {
      this.#alarm.textContent = `The assistant asks you: ${card.title} Answer with Yes or No above the message field.`;
    } else {
      if (!follows) this.#cameFrom = at;
      card.root.focus();
    }
  }
}

class Card {
  #asked = element("div", { className: "asked", id: "consent-what" });
  #below = element("p", { className: "below", ariaHidden: "true", textContent: "Scroll for the rest ↓", hidden: true });
  #sizes = new ResizeObserver(() => this.fit());
  #more = element("span", { className: "more" });
  #time = element("p", { className: "left", role: "timer" });
  #yes = element("button", { type: "button", className: "primary", textContent: "Yes", disabled: true });
  #no = element("button", { type: "button", textContent: "No", disabled: true });
  #late;
  #timers = [];

  constructor(question, description, { choose, late }) {
    this.question = question;
    this.title = `${question.label ? visible(question.label) : capital(inWords(question.name))}?`;
    this.#late = late;
    this.root = element(
      "section",
      { className: "consent", role: "dialog", tabIndex: -1 },
      element(
        "div",
        { className: "head" },
        element("p", { className: "lead", id: "consent-lead" }, "The assistant asks you", this.#more),
        element("h2", { id: "consent-title", textContent: this.title }),
      ),
      this.#asked,
      this.#below,
      element("div", { className: "answer" }, this.#yes, this.#no, this.#time),
    );
    if (description) this.#asked.append(element("p", { textContent: description }));
    this.#asked.append(details(question.args));
    this.root.setAttribute("aria-labelledby", "consent-lead consent-title");
    this.root.setAttribute("aria-describedby", "consent-what");
    for (const button of [this.#yes, this.#no]) button.setAttribute("aria-describedby", "consent-title");
    this.#yes.addEventListener("click", () => choose(true));
    this.#no.addEventListener("click", () => choose(false));
    this.root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.#no.disabled) return;
      event.stopPropagation();
      choose(false);
    });
    this.#asked.addEventListener("scroll", () => this.fit());
    this.#sizes.observe(this.#asked);
    this.#timers.push(setTimeout(() => this.#listen(), DEAF_MS), setInterval(() => this.#tick(), 250));
    this.#tick();
  }

  /** What does not fit is scrolled, from the keyboard too; nobody is to agree to what they did not see was there. */
  fit() {
    const { scrollTop, scrollHeight, clientHeight } = this.#asked;
    if (scrollHeight > clientHeight) Object.assign(this.#asked, { tabIndex: 0, role: "group", ariaLabel: "What it would do" });
    this.#below.hidden = scrollTop + clientHeight > scrollHeight - 8;
  }

  /** How many questions wait behind this one. */
  count(others) {
    this.#more.textContent = others === 0 ? "" : ` · ${others} more after this`;
  }

  end() {
    for (const timer of this.#timers) clearInterval(timer);
    this.#sizes.disconnect();
    this.root.remove();
  }

  #listen() {
    this.#yes.disabled = this.#no.disabled = false;
  }

  #tick() {
    const seconds = Math.max(1, Math.ceil((this.question.until - Date.now()) / 1000));
    const text = countdown(seconds);
    if (this.#time.textContent === text) return;
    this.#time.textContent = text;
    if (seconds > LATE_S || this.root.classList.contains("late")) return;
    this.root.classList.add("late");
    this.#late(`${this.title} ${text}`);
  }
}

function details(args) {
  if (!args) return element("p", { className: "quiet", textContent: "The details of it are not shown." });
  const rows = Object.entries(args).map(([name, value]) => {
    const text = valueInWords(value);
    const shown = element("dd", { dir: "auto", className: text.length > LONG ? "long" : "", textContent: text });
    return element("div", {}, element("dt", { textContent: inWords(name) }), shown);
  });
  return rows.length > 0 ? element("dl", {}, ...rows) : "";
}
