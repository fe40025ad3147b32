// The engine of published pages: Alliance Auth, Celery and a Redis in memory, in a Web Worker of the reader's browser.

const SAID = {
  none: "Not started.",
  loading: "What runs your code is being loaded …",
  starting: "Alliance Auth and a worker start …",
  ready: "Ready, in simulated time. Where tasks race you see one order; on a server another one may come.",
  gone: "It has ended. Run starts it anew.",
};
const WHY = {
  lost: "The network was lost while loading: press Run to try again.",
  worker: "This browser does not let the page start a Web Worker, so nothing can run here.",
  "no JSPI": "This browser can't switch stacks in WebAssembly (JSPI), so nothing can run here.",
};
const FULL = "Your browser's storage is full: the next visit loads all of it again.";
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

export class Browser {
  stopped = "Stopped. Run starts anew.";

  // `pack` is its manifest: `version`, and `total`, the bytes that are loaded; `base` is where it lies.
  constructor(pack, base) {
    this.pack = pack;
    this.base = base;
    this.told = () => {};
    this.state = "none";
    this.broker = {};
    this.waiting = new Map();
    this.count = 0;
    // Counts starts: a new one has the definitions of the files.
    this.generation = 0;
  }

  tell(state) {
    this.state = state;
    this.told(state, this.broker, SAID[state] + (this.full ? ` ${FULL}` : ""));
  }

  // Resolves when it can run something; one start serves all who ask.
  ready(tell = () => {}) {
    this.progress = tell;
    this.starting ??= this.start().catch((error) => {
      this.drop(error.message);
      throw error;
    });
    return this.starting;
  }

  async start() {
    this.generation += 1;
    this.tell("loading");
    try {
      this.worker = new Worker(new URL("worker.js", this.base), { type: "module" });
    } catch {
      throw new Error(WHY.worker);
    }
    this.worker.onmessage = ({ data }) => this.take(data);
    // Its script was blocked, or could not be loaded.
    this.worker.onerror = (event) => {
      event.preventDefault?.();
      this.drop(navigator.onLine ? WHY.worker : WHY.lost);
    };
    const ready = await this.ask({ kind: "start", ...this.pack });
    this.place = `your browser: Python ${ready.python.split(".", 2).join(".")}, Redis in memory, simulated time`;
    this.tell("ready");
  }

  ask(message, heard = () => {}) {
    const asked = (this.count += 1);
    return new Promise((resolve, reject) => {
      this.waiting.set(asked, { resolve, reject, heard });
      this.worker.postMessage({ ...message, asked });
    });
  }

  take({ kind, data, asked }) {
    const entry = this.waiting.get(asked);
    if (kind === "loaded") this.progress(`Loads ${megabytes(Math.min(data.loaded, data.total))} of ${megabytes(data.total)} MB. Stop cancels it.`);
    else if (kind === "full") this.full = true;
    else if (kind === "starting") {
      this.tell("starting");
      this.progress("Starts Alliance Auth and a worker …");
    } else if (kind === "broker") {
      this.broker = data;
      this.tell(this.state);
    } else if (kind === "failed") this.drop(WHY[data.split(":")[0]] ?? `It ended by an error of its own. Run starts it anew. (${data.trim().split("\n").pop()})`);
    else if (["ready", "defined", "ended"].includes(kind)) {
      if (kind === "ended") entry.heard({ kind: "run", data });
      this.waiting.delete(asked);
      entry.resolve(data);
      // What is left after hours would come in between.
      if (data.spent) this.drop("");
    } else entry?.heard({ kind, data });
  }

  async define(module, code, heard) {
    await this.ask({ kind: "define", module, source: code }, heard);
  }

  execute(code, heard) {
    return this.ask({ kind: "run", source: code }, heard);
  }

  // A loop, or a long call into C, hears nothing: the whole Web Worker ends, and the next Run starts another.
  async stop() {
    for (const { heard } of this.waiting.values()) heard({ kind: "run", data: { lines: [], figure: "", seconds: 0, stopped: true } });
    this.drop(this.state === "ready" ? this.stopped : "Cancelled. Run loads it again.");
  }

  drop(why) {
    this.worker?.terminate();
    this.worker = null;
    this.starting = null;
    this.broker = {};
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    this.tell("gone");
    for (const { reject } of waiting) reject(new Error(why));
  }

  leave() {
    this.worker?.terminate();
  }
}
