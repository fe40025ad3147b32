// What makes the blocks of a page editable and runnable when the page comes from the live server.
// It speaks Jupyter's messages over one WebSocket to a kernel that belongs to this page alone.
import { CodeJar } from "./codejar.js";

const LOG = "application/vnd.celery-faq.log+json";
const WAIT = "application/vnd.celery-faq.wait+json";
const RUN = "application/vnd.celery-faq.run+json";
const BROKER = "application/vnd.celery-faq.broker+json";
// Definitions of tasks and scripts of calls; what else an app has (views, models, settings) is there to be read.
const RUNNABLE = /\/(tasks|demo\w*)\.py$/;
const HINT_ID = "live-editor-hint";
const IDLE_MINUTES = 20;

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};
const cookie = (name) => document.cookie.split("; ").find((pair) => pair.startsWith(`${name}=`))?.slice(name.length + 1);
const list = (blocks) => [...new Set(blocks.map((block) => block.name))].join(", ");
const plain = (text) => text.replace(/\u001b\[[0-9;]*m/g, "");

// ---- the kernel ------------------------------------------------------------

class Kernel {
  constructor(told) {
    this.told = told;
    this.waiting = new Map();
    this.session = crypto.randomUUID();
    this.state = "none";
    this.broker = {};
    // Counts kernels: a new one has the definitions of the files.
    this.generation = 0;
  }

  async ask(path, method) {
    const headers = { "X-XSRFToken": cookie("_xsrf") ?? "" };
    const answer = await fetch(`/api/kernels${path}`, { method, headers, credentials: "same-origin" }).catch(() => {
      throw new Error("The live server has ended. Start it again with nox -s live, and open the address that it prints.");
    });
    if (!answer.ok) throw new Error(`The live server answers ${answer.status}: ${(await answer.json()).message}`);
    return answer.status === 204 ? null : answer.json();
  }

  // Resolves when the kernel can run something; one start serves all who ask.
  ready() {
    this.starting ??= this.start().catch((error) => {
      this.starting = null;
      this.tell("gone");
      throw error;
    });
    return this.starting;
  }

  async start() {
    this.tell("starting");
    this.generation += 1;
    if (!this.id) this.id = (await this.ask("", "POST")).id;
    await new Promise((resolve, reject) => {
      const scheme = location.protocol === "https:" ? "wss" : "ws";
      this.socket = new WebSocket(`${scheme}://${location.host}/api/kernels/${this.id}/channels?session_id=${this.session}`);
      this.socket.onopen = resolve;
      this.socket.onerror = () => reject(new Error("The live server did not let this page to its kernel. Run tries again."));
      this.socket.onmessage = (event) => this.take(JSON.parse(event.data));
      this.socket.onclose = () => this.lost();
    });
    await this.request("kernel_info_request", {});
    this.tell("ready");
    this.rest();
  }

  // A tab that somebody has left open does not keep a broker and a worker for ever.
  rest() {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => {
      if (!this.id || this.waiting.size) return;
      this.drop();
      this.tell("rested");
    }, IDLE_MINUTES * 60_000);
  }

  tell(state) {
    this.state = state;
    this.told(state, this.broker);
  }

  // The kernel has died, or the server has ended it or itself.
  lost() {
    if (this.state === "left") return;
    this.drop();
    this.tell("gone");
  }

  // Lets go of the kernel; the server ends it when nobody is connected any more.
  drop() {
    this.starting = null;
    this.id = null;
    this.broker = {};
    if (this.socket) this.socket.onclose = null;
    this.socket?.close();
    this.fail("The kernel has ended. Run starts a new one.");
  }

  fail(text) {
    for (const entry of this.waiting.values()) entry.reject(new Error(text));
    this.waiting.clear();
  }

  take(message) {
    const data = message.content?.data;
    if (data?.[BROKER]) {
      this.broker = data[BROKER];
      this.told(this.state, this.broker);
      return;
    }
    if (message.msg_type === "status" && message.content.execution_state === "dead") {
      this.lost();
      return;
    }
    const entry = this.waiting.get(message.parent_header?.msg_id);
    if (!entry) return;
    if (message.msg_type.endsWith("_reply")) entry.reply = message.content;
    else if (message.msg_type === "status" && message.content.execution_state === "idle") entry.idle = true;
    else entry.heard(message);
    if (entry.reply && entry.idle) {
      this.waiting.delete(message.parent_header.msg_id);
      entry.resolve(entry.reply);
      this.rest();
    }
  }

  request(type, content, heard = () => {}) {
    const id = crypto.randomUUID();
    const header = { msg_id: id, msg_type: type, session: this.session, username: "", version: "5.3", date: new Date().toISOString() };
    const message = { header, parent_header: {}, metadata: {}, content, channel: "shell", buffers: [] };
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, heard });
      this.socket.send(JSON.stringify(message));
    });
  }

  execute(code, heard) {
    return this.request("execute_request", { code, silent: false, store_history: false, user_expressions: {}, allow_stdin: false, stop_on_error: true }, heard);
  }

  // A kernel without its broker is of no use: Run takes another, with its own.
  renew() {
    if (this.broker.broker === "gone") this.drop();
  }

  leave() {
    this.state = "left";
    this.drop();
  }
}

// ---- a block ---------------------------------------------------------------

class Block {
  constructor(figure, kernel, all) {
    this.figure = figure;
    this.kernel = kernel;
    this.all = all;
    this.file = figure.dataset.file.replace(/^examples\//, "");
    const part = figure.querySelector("figcaption .part")?.textContent;
    this.name = part ? `${this.file} › ${part}` : this.file;
    this.called = !this.file.endsWith("/tasks.py");
    this.source = figure.querySelector(".cell_input pre, pre");
    this.original = this.source.textContent;
    // What the worker of which kernel was given; without, it has the file.
    this.sent = { text: this.original, generation: 0 };
    this.recorded = figure.querySelector(".cell_output");
    this.edit();
    this.controls();
  }

  get text() {
    return this.jar.toString().replace(/\s*$/, "\n");
  }

  get edited() {
    return this.text.trimEnd() !== this.original.trimEnd();
  }

  // What the worker has of this block.
  get known() {
    return this.sent.generation === this.kernel.generation ? this.sent.text : this.original;
  }

  get module() {
    return this.file.replace(/\.py$/, "").replaceAll("/", ".");
  }

  edit() {
    const editor = make("pre", {
      class: "live-editor",
      role: "textbox",
      tabindex: "0",
      "aria-multiline": "true",
      "aria-label": `Edit ${this.name}`,
      "aria-describedby": HINT_ID,
      spellcheck: "false",
      autocapitalize: "off",
    });
    editor.textContent = this.original.replace(/\n$/, "");
    this.source.replaceWith(editor);
    const paint = (node) => {
      node.innerHTML = Prism.highlight(node.textContent, Prism.languages.python, "python");
    };
    this.jar = CodeJar(editor, paint, { tab: "    ", indentOn: /[:([{]\s*$/, moveToNewLine: /^[)\]}]/, spellcheck: false, addClosing: false });
    paint(editor);
    // Tab indents, but must not trap: after Escape it moves on, as the hint tells.
    editor.addEventListener("focus", () => this.jar.updateOptions({ catchTab: true }));
    editor.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.jar.updateOptions({ catchTab: false });
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey || event.shiftKey)) {
        event.preventDefault();
        event.stopImmediatePropagation();
        this.run();
      }
    }, true);
    this.editor = editor;
    this.jar.onUpdate(() => this.figure.classList.toggle("live-edited", this.edited));
  }

  controls() {
    const button = (name, label, action) => make("button", { type: "button", class: `live-${name}`, onclick: action, "aria-label": `${label} ${this.name}` }, label);
    this.buttons = {
      run: button("run", "Run", () => this.run()),
      stop: button("stop", "Stop", () => this.stop()),
      reset: button("reset", "Reset", () => this.reset()),
    };
    this.buttons.stop.disabled = true;
    this.note = make("span", { class: "live-note", role: "status", "aria-live": "polite" });
    this.out = make("pre", { class: "live-output", tabindex: "0", role: "region", "aria-label": `Output of ${this.file}`, hidden: "" });
    this.timeline = make("div", { class: "live-timeline" });
    const bar = make("div", { class: "live-bar" }, ...Object.values(this.buttons), this.note);
    const evidence = this.figure.querySelector("details.evidence");
    this.figure.insertBefore(bar, evidence);
    this.figure.insertBefore(this.out, evidence);
    this.figure.insertBefore(this.timeline, evidence);
  }

  show(kind, text) {
    this.out.hidden = false;
    if (this.recorded) this.recorded.hidden = true;
    this.out.append(make("span", { class: `live-${kind}` }, text));
  }

  heard(message) {
    const content = message.content;
    if (message.msg_type === "stream") this.show(content.name, plain(content.text));
    else if (message.msg_type === "error") this.error(content);
    else if (content.data?.[LOG]) {
      for (const line of content.data[LOG]) this.show("worker", `[worker] ${line}\n`);
    } else if (content.data && WAIT in content.data) {
      const left = content.data[WAIT];
      this.note.textContent = left ? `Still waits for ${left} ${left === 1 ? "task" : "tasks"}. Stop ends it.` : "Runs …";
    } else if (content.data?.[RUN]) this.ended(content.data[RUN]);
    else if (content.data?.["text/plain"]) this.show("stdout", `${content.data["text/plain"]}\n`);
  }

  // The last line is what a person wants; the way there stands behind a disclosure.
  error(content) {
    this.failed = true;
    if (content.ename === "KeyboardInterrupt") return;
    const last = content.evalue ? `${content.ename}: ${content.evalue}` : content.ename;
    this.show("error", `${last}\n`);
    const way = plain(content.traceback.join("\n"));
    if (way.trim() !== last && way.includes("\n")) {
      const details = make("details", { class: "live-traceback" }, make("summary", {}, "Traceback"), make("pre", { tabindex: "0" }, way));
      this.out.append(details);
    }
  }

  // The worker's lines came as they were logged; now they stand in the order in which the recorded output has them.
  ended(run) {
    this.out.querySelectorAll(".live-worker").forEach((node) => node.remove());
    const lines = run.lines.map((line) => make("span", { class: "live-worker" }, `[worker] ${line}\n`));
    const error = this.out.querySelector(".live-error");
    if (error) error.before(...lines);
    else this.out.append(...lines);
    if (run.lines.length) {
      this.out.hidden = false;
      if (this.recorded) this.recorded.hidden = true;
    }
    if (run.figure) this.timeline.innerHTML = run.figure;
    this.result = run;
  }

  async run() {
    if (this.running) return;
    this.running = true;
    this.failed = false;
    this.result = null;
    this.buttons.run.disabled = true;
    this.buttons.stop.disabled = false;
    this.figure.classList.add("live-running");
    this.out.replaceChildren();
    this.timeline.replaceChildren();
    try {
      if (this.kernel.state !== "ready") this.note.textContent = "Waiting for a broker, Alliance Auth and a worker …";
      this.kernel.renew();
      await this.kernel.ready();
      const definitions = this.called ? this.all.filter((block) => !block.called) : [];
      const first = definitions.filter((block) => block.text.trimEnd() !== block.known.trimEnd());
      let before = "";
      if (first.length) before = `First ran ${list(first)}, as you edited. `;
      else if (definitions.length) before = `With ${[...new Set(definitions.map((block) => block.file))].join(", ")} as the worker has it. `;
      if (first.length) this.note.textContent = `First: ${list(first)}, as you edited …`;
      for (const block of first) await block.define(this);
      if (this.called) {
        this.note.textContent = `${before}Runs …`;
        await this.kernel.execute(this.text, (message) => this.heard(message));
        if (!this.out.hasChildNodes() && !this.result?.stopped) this.show("stdout", "(no output)\n");
      } else await this.define(this);
      this.tell(before);
    } catch (error) {
      this.note.textContent = error.message;
      this.out.hidden = !this.out.hasChildNodes();
    } finally {
      this.running = false;
      this.buttons.run.disabled = false;
      this.buttons.stop.disabled = true;
      this.figure.classList.remove("live-running");
    }
  }

  async define(asker) {
    const text = this.text;
    asker.failed = false;
    await this.kernel.execute(`%%tasks ${this.module}\n${text}`, (message) => asker.heard(message));
    if (asker.failed) throw new Error(`${this.file} could not be taken over.`);
    this.sent = { text, generation: this.kernel.generation };
  }

  tell(before) {
    const seconds = this.result ? `${this.result.seconds.toFixed(2)} s` : "";
    if (this.result?.stopped) this.note.textContent = "Stopped. What was left is dropped; a new worker stands ready.";
    else if (this.failed) this.note.textContent = `${before}Ended with an error, ${seconds}`;
    else if (!this.called) this.note.textContent = "The worker has it. Run a call to see what it does.";
    else this.note.textContent = `${before}Done, ${seconds}`;
  }

  async stop() {
    this.note.textContent = "Stopping …";
    await this.kernel.ask(`/${this.kernel.id}/interrupt`, "POST").catch((error) => {
      this.note.textContent = error.message;
    });
  }

  reset() {
    this.jar.updateCode(this.original.replace(/\n$/, ""));
    this.figure.classList.remove("live-edited");
    this.out.replaceChildren();
    this.out.hidden = true;
    this.timeline.replaceChildren();
    if (this.recorded) this.recorded.hidden = false;
    this.note.textContent = !this.called && this.known.trimEnd() !== this.text.trimEnd() ? "As in the file again; the worker gets it with the next Run." : "As in the file again.";
  }
}

// ---- the broker's panel ----------------------------------------------------

class Panel {
  constructor() {
    this.state = make("p", { class: "live-state", role: "status", "aria-live": "polite" });
    this.levels = make("ol", { class: "live-levels", start: "0", "aria-label": "Messages that wait, by priority" });
    this.bars = Array.from({ length: 10 }, (_, level) => {
      const bar = make("span", { class: "live-bar-fill" });
      const count = make("span", { class: "live-count" });
      const name = make("span", { class: "live-level" }, make("span", { class: "hidden" }, "priority "), String(level));
      this.levels.append(make("li", {}, count, make("span", { class: "live-bar-track" }, bar), name));
      return { bar, count };
    });
    this.facts = make("dl", { class: "live-facts" });
    this.node = make("details", { open: "" }, make("summary", {}, "The broker, now"), this.state, this.levels, this.facts);
    if (matchMedia("(max-width: 60rem)").matches) this.node.removeAttribute("open");
    this.frame = make("aside", { class: "live-panel", "aria-label": "The broker" }, this.node);
    document.body.append(this.frame, make("p", { id: HINT_ID, hidden: "" }, "Control and Enter runs. Tab indents; press Escape, then Tab, to move on."));
  }

  show(state, broker) {
    const said = {
      none: "Not started.",
      starting: "A broker, Alliance Auth and a worker start …",
      ready: "Ready. What you send is yours alone.",
      gone: "The kernel has ended. Run starts a new one.",
      rested: `Nothing ran for ${IDLE_MINUTES} minutes, so all was ended. Run starts it anew.`,
    }[state] ?? "";
    let text = said;
    if (broker.broker === "gone") text = "The broker has ended. Run starts everything anew.";
    else if (broker.worker === "gone") text = "The worker has ended. Run starts a new one.";
    if (this.state.textContent !== text) this.state.textContent = text;
    this.frame.classList.toggle("live-trouble", state === "gone" || broker.broker === "gone" || broker.worker === "gone");
    const most = Math.max(1, ...Object.values(broker.waiting ?? {}));
    this.bars.forEach(({ bar, count }, level) => {
      const waiting = broker.waiting?.[level] ?? 0;
      // Empty levels say so to those who hear them only.
      count.replaceChildren(waiting ? String(waiting) : make("span", { class: "hidden" }, "0"));
      bar.style.blockSize = `${(100 * waiting) / most}%`;
    });
    const rows = [["held, not acknowledged", broker.taken ?? 0], ["held for a countdown", broker.scheduled ?? 0], ["locks", (broker.locks ?? []).join(", ") || "none"]];
    this.facts.replaceChildren(...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
  }
}

// ---- start -----------------------------------------------------------------

const figures = [...document.querySelectorAll("figure.block[data-file$='.py']")].filter(
  (figure) => RUNNABLE.test(figure.dataset.file),
);
if (figures.length) {
  const panel = new Panel();
  const kernel = new Kernel((state, broker) => panel.show(state, broker));
  const all = [];
  for (const figure of figures) all.push(new Block(figure, kernel, all));
  addEventListener("pagehide", () => kernel.leave());
  // From the back-forward cache the page comes without its kernel.
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  // The panel tells it.
  kernel.ready().catch(() => {});
}
