// The engine of published pages: Alliance Auth, Celery and a Redis in memory, in a Web Worker of the reader's browser.

const SAID = {
  none: "Not started.",
  loading: "What runs your code is being loaded …",
  starting: "Alliance Auth and a worker start …",
  ready: "Ready, in simulated time. What you send is yours alone.",
  ended: "Ended. Run starts it anew.",
  gone: "It has ended. Run starts it anew.",
};
const LOST = "The network was lost while loading. Press Run to try again.";
const BLOCKED = "This browser, or this site's host, lets no Web Worker start, so nothing can run here.";
const FULL = "Your browser's storage is full, so the next visit loads all of it again.";
const RACE = "Where tasks race, this is one order; a server may take another.";
// What the Web Worker's answer to each question is called.
const ANSWERS = { start: "ready", define: "defined", run: "ended" };
const broken = (text) => `It ended by an error of its own. Run starts it anew. (${text.trim().split("\n").pop()})`;

export class Browser {
  cancel = "Cancel";

  // `pack` has its `version`, and `total`, the bytes that are loaded; `base` is where it lies.
  constructor(pack, base) {
    this.pack = pack;
    this.script = new URL("worker.js", base);
    this.told = () => {};
    this.state = "none";
    this.broker = {};
    // The Web Worker does one thing at a time: the first of these is asked, the others wait.
    this.questions = [];
    // Counts starts: a new one has the definitions of the files.
    this.generation = 0;
  }

  tell(state) {
    this.state = state;
    this.told(state, this.broker, SAID[state]);
  }

  // What it is, for the output.
  get place() {
    return `your browser: ${this.python}, Redis in memory, simulated time. ${RACE}${this.full ? ` ${FULL}` : ""}`;
  }

  // Resolves when it can run something; one start serves all who ask, and all are told how far it is.
  ready(tell = () => {}) {
    if (this.state !== "ready") this.waiting.add(tell);
    this.starting ??= this.start().catch((error) => {
      this.drop("gone", error.message);
      throw error;
    });
    return this.starting;
  }

  waiting = new Set();

  progress(...told) {
    for (const tell of this.waiting) tell(...told);
  }

  async start() {
    this.generation += 1;
    this.tell("loading");
    try {
      this.worker = new Worker(this.script, { type: "module" });
    } catch {
      throw new Error(BLOCKED);
    }
    const { worker } = this;
    worker.onmessage = ({ data }) => this.take(data);
    worker.onerror = async (event) => {
      event.preventDefault();
      // A script that was blocked and one that did not come look the same.
      const there = await fetch(this.script, { method: "HEAD", cache: "no-store" }).then((answer) => answer.ok, () => false);
      if (this.worker === worker) this.drop("gone", event.message ? broken(event.message) : there ? BLOCKED : LOST);
    };
    const { python } = await this.ask("start", this.pack);
    this.python = `Python ${python.split(".", 2).join(".")}`;
    this.waiting.clear();
    this.tell("ready");
  }

  ask(kind, given, heard = () => {}) {
    return new Promise((resolve, reject) => {
      this.questions.push({ message: { kind, ...given }, answer: ANSWERS[kind], resolve, reject, heard });
      if (this.questions.length === 1) this.next();
    });
  }

  next() {
    if (this.questions.length) this.worker.postMessage(this.questions[0].message);
  }

  take({ kind, data }) {
    const [question] = this.questions;
    if (kind === "loaded") this.progress("Loads what runs your code.", Math.min(data.loaded, data.total), data.total);
    else if (kind === "full") this.full = true;
    else if (kind === "starting") {
      this.tell("starting");
      this.progress("Alliance Auth and a worker start …");
    } else if (kind === "broker") {
      this.broker = data;
      this.tell(this.state);
    } else if (kind === "failed") this.drop("gone", data.startsWith("lost") ? LOST : broken(data));
    else if (kind === question?.answer) {
      this.questions.shift();
      // Each start counts its figures from one.
      if (kind === "ended") question.heard({ kind: "run", data: { ...data, figure: data.figure.replaceAll("online-", `online-${this.generation}-`) } });
      question.resolve(data);
      // What is left after hours would come in between.
      if (data?.spent) this.drop("ended", "What ran before it did not end. Press Run to start anew.");
      else this.next();
    } else question?.heard({ kind, data });
  }

  define(module, source, heard) {
    return this.ask("define", { module, source }, heard);
  }

  execute(source, heard) {
    return this.ask("run", { source }, heard);
  }

  // A loop, or a long call into C, hears nothing: the whole Web Worker ends, and the next Run starts another.
  async stop() {
    this.drop("ended", this.state === "ready" ? "Stopped. Run starts anew." : "Cancelled. Run loads it again.");
  }

  // Ends the Web Worker; who waits for it is told why.
  drop(state, why) {
    this.leave();
    this.worker = null;
    this.starting = null;
    this.broker = {};
    this.waiting.clear();
    this.tell(state);
    for (const { reject } of this.questions.splice(0)) reject(new Error(why));
  }

  leave() {
    this.worker?.terminate();
  }
}
