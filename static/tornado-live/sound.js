/** The browser's audio graph: one AudioContext, a microphone worklet and a speaker worklet. */

import { LiveError } from "./errors.js";

const MICROPHONE_ERRORS = {
  NotAllowedError: [
    "microphone_denied",
    "The browser may not use the microphone. Allow it for this page (the icon beside the address), then try again. Typing works without it.",
  ],
  NotFoundError: ["microphone_missing", "No microphone was found. Plug one in and try again, or type instead."],
  OverconstrainedError: ["microphone_missing", "The chosen microphone is gone. Choose another one, or type instead."],
  NotReadableError: [
    "microphone_busy",
    "The microphone cannot be read: another program may hold it. Close that program and try again, or type instead.",
  ],
};

function microphoneError(cause) {
  const [code, message] = MICROPHONE_ERRORS[cause.name] ?? [
    "microphone_failed",
    "The microphone could not be started. Try again, or type instead.",
  ];
  return new LiveError(code, message, { cause });
}

function insecureContext() {
  return new LiveError(
    "insecure_context",
    "Browsers give sound and microphone only to pages over https or from localhost. Open the page that way; reading and typing work here too.",
  );
}

function cancelled() {
  return new LiveError("cancelled", "Disconnected before the microphone opened.");
}

export class Sound {
  #context = new AudioContext({ latencyHint: "interactive" });
  #speaker = null;
  #loaded;
  #microphone = null; // {stream, source, node}

  /**
   * @param {{onSpeaker: function(object): void, onFailure: function(LiveError): void}} listeners
   *   onSpeaker gets what speaker.js posts
   */
  constructor({ onSpeaker, onFailure }) {
    this.#loaded = this.#load(onSpeaker).catch((cause) => {
      throw this.#failure(cause);
    });
    this.#loaded.catch((error) => error.code !== "cancelled" && onFailure(error));
    this.resume();
  }

  /** A browser that is still loading when its context is closed reports a failure too. */
  #failure(cause) {
    if (this.#context.state === "closed") return cancelled();
    const message = "This browser could not start its sound. Reload the page; if that does not help, use a current browser.";
    return cause instanceof LiveError ? cause : new LiveError("sound_failed", message, { cause });
  }

  async #load(onSpeaker) {
    if (!this.#context.audioWorklet) throw insecureContext();
    const modules = ["./microphone.js", "./speaker.js"].map((path) => new URL(path, import.meta.url));
    await Promise.all(modules.map((url) => this.#context.audioWorklet.addModule(url)));
    if (this.#context.state === "closed") return;
    this.#speaker = new AudioWorkletNode(this.#context, "tornado-live-speaker", {
      numberOfInputs: 0,
      outputChannelCount: [1],
    });
    this.#speaker.port.onmessage = ({ data }) => onSpeaker(data);
    this.#speaker.connect(this.#context.destination);
  }

  /** Browsers start a context only after a gesture and pause it for phone calls; asking again does no harm. */
  resume() {
    if (this.#context.state !== "closed") this.#context.resume().catch(() => {});
  }

  play(pcm, rate) {
    this.#toSpeaker({ pcm, rate }, [pcm]);
  }

  endOfTurn() {
    this.#toSpeaker({ end: true });
  }

  clear() {
    this.#toSpeaker({ clear: true });
  }

  /** The first words may come before the worklet is loaded; they keep their order. */
  #toSpeaker(message, transfer = []) {
    this.#loaded.then(
      () => this.#speaker?.port.postMessage(message, transfer),
      () => {}, // told by onFailure
    );
  }

  async openMicrophone({ deviceId, onFrame, onLost }) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw insecureContext();
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: {
          channelCount: { ideal: 1 },
          echoCancellation: true,
          noiseSuppression: true,
          autoGainControl: true,
          ...(deviceId && { deviceId: { exact: deviceId } }),
        },
      });
    } catch (cause) {
      throw microphoneError(cause);
    }
    try {
      await this.#loaded;
      if (this.#context.state === "closed") throw cancelled();
      const source = this.#context.createMediaStreamSource(stream);
      const node = new AudioWorkletNode(this.#context, "tornado-live-microphone", { numberOfOutputs: 0 });
      node.port.onmessage = ({ data }) => onFrame(data);
      source.connect(node);
      this.closeMicrophone();
      this.#microphone = { stream, source, node };
    } catch (error) {
      for (const track of stream.getTracks()) track.stop();
      throw error;
    }
    stream.getAudioTracks()[0].addEventListener("ended", onLost, { once: true });
  }

  /** The track is disabled, not only ignored, so that the system shows the microphone as muted. */
  muteMicrophone(muted) {
    for (const track of this.#microphone?.stream.getTracks() ?? []) track.enabled = !muted;
  }

  closeMicrophone() {
    if (this.#microphone === null) return;
    const { stream, source, node } = this.#microphone;
    this.#microphone = null;
    node.port.onmessage = null;
    source.disconnect();
    for (const track of stream.getTracks()) track.stop();
  }

  close() {
    this.closeMicrophone();
    if (this.#speaker) this.#speaker.port.onmessage = null;
    if (this.#context.state !== "closed") this.#context.close();
  }
}
