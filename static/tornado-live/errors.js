/** A failure in words for people. Codes: the server's table (docs/protocol.md), and those of the browser's side. */
export class LiveError extends Error {
  /**
   * @param {string} code  stable name, for programs
   * @param {string} message  what happened and what to do, for people
   */
  constructor(code, message, { retryable = false, retryAfterMs = 0, requestId = null, cause } = {}) {
    super(message, { cause });
    this.name = "LiveError";
    this.code = code;
    this.retryable = retryable;
    this.retryAfterMs = retryAfterMs;
    this.requestId = requestId;
  }
}

// What to say when the line closes and the server's own error message did not get through.
const CLOSES = {
  1000: ["closed", "The server closed the conversation. Connect again to go on.", false],
  1001: ["unavailable", "The server is shutting down or restarting.", true],
  1002: ["bad_message", "The server and this page do not understand each other. Reload the page.", false],
  1007: ["bad_message", "The server and this page do not understand each other. Reload the page.", false],
  1009: ["too_large", "A message was too large for the server.", false],
  4400: ["bad_message", "The server did not understand what was sent. Reload the page.", false],
  4401: ["unauthenticated", "The server does not know who you are, or no longer. Log in again.", false],
  4403: ["forbidden", "The server does not allow this.", false],
  4404: ["session_not_found", "This conversation has expired or was deleted. Start a new one.", false],
  4408: ["timeout", "The line was closed after a long silence. Connect again to go on.", false],
  4409: ["replaced", "This conversation was opened in another tab or window. Go on there, or connect again to take it back.", false],
  4410: ["session_ended", "This conversation has ended. Start a new one.", false],
  4413: ["too_large", "A message was too large for the server.", false],
  4429: ["limited", "The server is busy, or a limit is reached.", true],
  4430: ["slow_consumer", "This connection is too slow for the sound.", true],
  4500: ["internal", "The server made a mistake. It is written in its log.", true],
  4502: ["upstream_rejected", "The model side refused the conversation. The server's log names the cause.", false],
  4503: ["unavailable", "The model side or the server cannot be reached.", true],
  4504: ["upstream_timeout", "The model side did not answer in time.", true],
};

/** Why a socket closed. A cut line (1006 and other codes that nobody sent on purpose) may be tried again. */
export function closeError(code) {
  const [name, message, retryable] = CLOSES[code] ?? ["connection_lost", "The connection to the server was lost.", true];
  return new LiveError(name, message, { retryable });
}

/** An `error` message of the server. An idle line is not reopened by itself: nobody may be there. */
export function serverError({ code, message, retryable = false, retryAfterMs = 0, requestId = null }) {
  return new LiveError(code ?? "internal", message ?? "The server reported an error.", {
    retryable: retryable && code !== "timeout",
    retryAfterMs,
    requestId,
  });
}
