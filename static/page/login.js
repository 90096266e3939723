/** Asks the person who they are, where the server wants to know. What is on the screen stays there meanwhile. */

import { countdown, withoutWait } from "./countdown.js";
import { element } from "./view.js";

const WHY = "This server talks only with people it knows: enter the API key or token that you were given for it.";
const KEPT = "It is kept in this tab alone. Log out where others use this computer.";
const EMPTY = "Enter your key first.";
const ODD = "No key has spaces or such letters in it. Copy it once more, all of it and nothing else.";

export class LoginView {
  #place;
  #check;
  #done;
  #resting;
  #form = null;

  /**
   * @param {object} parts
   * @param {Element} parts.place  where the form appears
   * @param {(credential: string) => Promise<LiveError|null>} parts.check  why the server does not take it; null: it does
   * @param {(credential: string) => void} parts.done
   * @param {() => Element} parts.resting  what has the focus when nothing else should
   */
  constructor({ place, check, done, resting }) {
    this.#place = place;
    this.#check = check;
    this.#done = done;
    this.#resting = resting;
  }

  get open() {
    return this.#form !== null;
  }

  /**
   * @param {string} [reason]  why it is asked again
   * @param {string} [why]  what for
   */
  ask(reason = "", why = WHY) {
    if (this.#form) return;
    const at = document.activeElement;
    const writing = at?.matches("input, textarea") && at.value !== "";
    this.#form = new Form(reason, why, (credential) => this.#submitted(credential));
    this.#place.replaceChildren(this.#form.root);
    // The next keys of somebody who is writing are not meant for the field.
    (writing ? this.#form.root : this.#form.field).focus();
  }

  async #submitted(credential) {
    const form = this.#form;
    form.busy(true);
    const refusal = await this.#check(credential);
    form.busy(false);
    if (form !== this.#form) return;
    if (refusal) {
      form.refuse(refusal);
      return;
    }
    this.#form = null;
    form.root.remove();
    this.#resting().focus();
    this.#done(credential);
  }
}

class Form {
  field = element("input", { id: "credential", type: "password", autocomplete: "off", spellcheck: false });
  #reveal = element("button", { type: "button", className: "plain", textContent: "Show", ariaLabel: "Show the key" });
  #enter = element("button", { type: "submit", className: "primary", textContent: "Log in" });
  #problem = element("p", { className: "problem", id: "login-problem", role: "alert" });
  #submit;
  #checking = false;

  constructor(reason, why, submit) {
    this.#submit = submit;
    this.field.autocapitalize = "none";
    this.field.setAttribute("aria-describedby", "login-problem login-reason login-why login-kept");
    this.root = element(
      "form",
      { className: "login", autocomplete: "off", tabIndex: -1, noValidate: true },
      element("h2", { id: "login-title", textContent: "Who are you?" }),
      element("p", { className: "reason", id: "login-reason", textContent: reason }),
      element("p", { id: "login-why", textContent: why }),
      element(
        "div",
        { className: "entry" },
        element("label", { htmlFor: "credential", textContent: "API key or token" }),
        element("div", { className: "field" }, this.field, this.#reveal),
        this.#problem,
      ),
      element("div", { className: "enter" }, this.#enter, element("p", { id: "login-kept", className: "quiet", textContent: KEPT })),
    );
    this.root.setAttribute("aria-labelledby", "login-title");
    this.root.setAttribute("aria-describedby", "login-reason login-why");
    this.root.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#checking) this.#entered();
    });
    this.#reveal.addEventListener("click", () => this.#show(this.field.type === "password"));
    this.field.addEventListener("input", () => this.#say(""));
  }

  busy(checking) {
    this.#checking = checking;
    this.#enter.setAttribute("aria-disabled", String(checking)); // disabled would lose the focus
    this.#enter.textContent = checking ? "Checking" : "Log in";
  }

  refuse({ message, retryAfterMs }) {
    this.#say(retryAfterMs > 0 ? withoutWait(message) : message);
    if (retryAfterMs > 0) {
      const again = countdown(Date.now() + retryAfterMs, (wait) => `Try again in ${wait}.`, "You can try again now.");
      this.#problem.append(" ", again);
    }
    this.field.focus();
    this.field.select();
  }

  /** People copy more than the key: what stands before it in a header, and spaces around it. */
  #entered() {
    const credential = this.field.value.trim().replace(/^(authorization:\s*)?bearer\s+/i, "");
    const wrong = credential === "" ? EMPTY : /^[\x21-\x7e]+$/.test(credential) ? "" : ODD;
    this.#say(wrong);
    if (wrong) this.field.focus();
    else this.#submit(credential);
  }

  #say(problem) {
    this.#problem.textContent = problem;
    this.field.setAttribute("aria-invalid", String(problem !== ""));
  }

  #show(plain) {
    this.field.type = plain ? "text" : "password";
    this.#reveal.textContent = plain ? "Hide" : "Show";
    this.#reveal.ariaLabel = plain ? "Hide the key" : "Show the key";
  }
}
