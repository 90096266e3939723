/** How long is still to wait, in words that are told anew as time goes by. */

import { element } from "./view.js";

/** @param {number} seconds  more than none */
export function waitInWords(seconds) {
  if (seconds < 100) return `${seconds} ${seconds === 1 ? "second" : "seconds"}`;
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 100) return `${minutes} minutes`;
  return `about ${Math.round(minutes / 60)} hours`;
}

/** What happened, without the "try again in a minute" of which the page counts the seconds itself. */
export const withoutWait = (message) => message.replace(/[.;,]?\s?try again\b[^.]*\.?$/i, ".");

/**
 * A piece of text that ends by itself once it is no longer in the document.
 *
 * @param {number} until  as Date.now() counts
 * @param {(wait: string) => string} during  the words while there is time left
 * @param {string} after  the words when there is none
 */
export function countdown(until, during, after) {
  const shown = element("span", { className: "countdown", role: "timer" }); // read when asked for, not each second
  let timer = null;
  let drawn = false;
  const tick = () => {
    const seconds = Math.ceil((until - Date.now()) / 1000);
    const words = seconds > 0 ? during(waitInWords(seconds)) : after;
    if (shown.textContent !== words) shown.textContent = words;
    drawn ||= shown.isConnected;
    if (seconds <= 0 || (drawn && !shown.isConnected)) clearInterval(timer);
  };
  timer = setInterval(tick, 250);
  tick();
  return shown;
}
