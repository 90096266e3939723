// Google's JavaScript client under remote control, in Node and in a page: commands as objects in, what happened as
// objects out. guest.py says which.

import { GoogleGenAI } from "@google/genai";

const PIECE = 640; // 20 ms at 16 kHz
const SENDING = {
  content: "sendClientContent",
  realtime: "sendRealtimeInput",
  answers: "sendToolResponse",
  context: "sendContextUpdate",
};

const bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const base64 = (bytes) => btoa(String.fromCharCode(...bytes));

export class Guest {
  #tell;
  #sessions = new Map();
  #opened = 0;

  constructor(tell) {
    this.#tell = tell;
  }

  #client({ base, key, version }) {
    return new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: base, apiVersion: version } });
  }

  async token(asked) {
    return { name: (await this.#client(asked).authTokens.create({ config: asked.config })).name };
  }

  async connect(asked) {
    const number = ++this.#opened;
    let refused = { code: null, reason: null };
    const callbacks = {
      onmessage: (message) => this.#tell({ session: number, message }),
      onclose: ({ code, reason }) => {
        refused = { code, reason };
        if (this.#sessions.has(number)) this.#tell({ session: number, closed: refused });
      },
    };
    const { model, config } = asked;
    try {
      this.#sessions.set(number, await this.#client(asked).live.connect({ model, config, callbacks }));
    } catch (error) {
      if (refused.code === null) throw error;
      throw Object.assign(error, { refused });
    }
    return { session: number };
  }

  async send({ session, what }) {
    for (const [kind, given] of Object.entries(what)) this.#sessions.get(session)[SENDING[kind]](given);
  }

  async sound({ session, pcm }) {
    const samples = bytes(pcm);
    for (let at = 0; at < samples.length; at += PIECE) {
      const audio = { data: base64(samples.subarray(at, at + PIECE)), mimeType: "audio/pcm;rate=16000" };
      this.#sessions.get(session).sendRealtimeInput({ audio });
    }
  }

  async close({ session }) {
    this.#sessions.get(session).close();
    this.#sessions.delete(session);
  }

  async obey(asked) {
    try {
      this.#tell({ id: asked.id, done: await this[asked.do](asked) ?? null });
    } catch (error) {
      const how = error.refused ?? (error.status ? { code: error.status, reason: error.message } : undefined);
      this.#tell({ id: asked.id, ...(how ? { refused: how } : { failed: String(error) }) });
    }
  }
}
