// What makes the blocks of a page editable and runnable: editor, Run, Stop, Reset, output, timeline, the broker's panel.
// Who runs them is an engine: the live server's kernel (live.js), or the reader's own browser (browser.js).
import { CodeJar } from "./codejar.js";

// Definitions of tasks and scripts of calls; what else an app has (views, models, settings) is there to be read.
const RUNNABLE = /\/(tasks|demo\w*)\.py$/;
const HINT_ID = "live-editor-hint";

export const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
const list = (blocks) => [...new Set(blocks.map((block) => block.name))].join(", ");

// ---- a block ---------------------------------------------------------------

class Block {
  constructor(figure, engine, all) {
    this.figure = figure;
    this.engine = engine;
    this.all = all;
    this.file = figure.dataset.file.replace(/^examples\//, "");
    const part = figure.querySelector("figcaption .part")?.textContent;
    this.name = part ? `${this.file} › ${part}` : this.file;
    this.called = !this.file.endsWith("/tasks.py");
    this.source = figure.querySelector(".cell_input pre, pre");
    this.original = this.source.textContent;
    // What the worker of which kernel was given; without, it has the file.
    this.sent = { text: this.original, generation: 0 };
    this.recorded = figure.querySelector(".cell_output, .recorded");
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
    return this.sent.generation === this.engine.generation ? this.sent.text : this.original;
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
    this.place = make("p", { class: "live-place", hidden: "" });
    const bar = make("div", { class: "live-bar" }, ...Object.values(this.buttons), this.note);
    const evidence = this.figure.querySelector("details.evidence");
    this.figure.insertBefore(bar, evidence);
    this.figure.insertBefore(this.place, evidence);
    this.figure.insertBefore(this.out, evidence);
    this.figure.insertBefore(this.timeline, evidence);
  }

  show(kind, text) {
    this.open();
    this.out.append(make("span", { class: `live-${kind}` }, text));
  }

  // Shows the reader's own output in place of the recorded one.
  open() {
    this.out.hidden = false;
    this.place.hidden = !this.place.textContent;
    if (this.recorded) this.recorded.hidden = true;
  }

  // Shows the recorded one.
  close() {
    this.out.hidden = true;
    this.place.hidden = true;
    if (this.recorded) this.recorded.hidden = false;
  }

  heard({ kind, data }) {
    if (kind === "stdout" || kind === "stderr") this.show(kind, data);
    else if (kind === "error") this.error(data);
    else if (kind === "log") for (const line of data) this.show("worker", `[worker] ${line}\n`);
    else if (kind === "wait") this.note.textContent = data ? `Still waits for ${data} ${data === 1 ? "task" : "tasks"}. Stop ends it.` : "Runs …";
    else if (kind === "run") this.ended(data);
  }

  // The last line is what a person wants; the way there stands behind a disclosure.
  error(content) {
    this.failed = true;
    if (content.ename === "KeyboardInterrupt") return;
    const last = content.evalue ? `${content.ename}: ${content.evalue}` : content.ename;
    this.show("error", `${last}\n`);
    const way = content.traceback;
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
    if (run.lines.length) this.open();
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
    this.place.textContent = "";
    try {
      this.nameStop(this.engine.cancel ?? "Stop");
      await this.engine.ready((...told) => this.prepare(...told));
      this.nameStop("Stop");
      const definitions = this.called ? this.all.filter((block) => !block.called) : [];
      const first = definitions.filter((block) => block.text.trimEnd() !== block.known.trimEnd());
      let before = "";
      if (first.length) before = `First ran ${list(first)}, as you edited. `;
      else if (definitions.length) before = `With ${[...new Set(definitions.map((block) => block.file))].join(", ")} as the worker has it. `;
      if (first.length) this.note.textContent = `First: ${list(first)}, as you edited …`;
      for (const block of first) await block.define(this);
      if (this.called) {
        this.note.textContent = `${before}Runs …`;
        if (this.engine.place) this.place.textContent = `${this.edited || first.length ? "Your own run, in" : "In"} ${this.engine.place}`;
        await this.engine.execute(this.text, (message) => this.heard(message));
        if (!this.out.hasChildNodes() && !this.result?.stopped) this.show("stdout", "(no output)\n");
      } else await this.define(this);
      this.tell(before);
    } catch (error) {
      this.note.textContent = error.message;
      if (!this.out.hasChildNodes()) this.close();
    } finally {
      this.running = false;
      this.buttons.run.disabled = false;
      if (document.activeElement === this.buttons.stop) this.buttons.run.focus();
      this.buttons.stop.disabled = true;
      this.nameStop("Stop");
      this.figure.classList.remove("live-running");
    }
  }

  nameStop(word) {
    this.buttons.stop.textContent = word;
    this.buttons.stop.setAttribute("aria-label", `${word} ${this.name}`);
  }

  // What the engine does before it can run anything; where that is to load, the bytes that are here, of how many.
  prepare(text, loaded = 0, total = 0) {
    if (!total) {
      this.note.textContent = text;
      return;
    }
    if (!this.note.querySelector("progress")) {
      // A screen reader hears the text once, and asks the bar.
      this.note.replaceChildren(text, make("progress", { max: total, "aria-label": text }), make("span", { "aria-hidden": "true" }));
    }
    const [bar, bytes] = this.note.children;
    bar.value = loaded;
    bytes.textContent = `${megabytes(loaded)} of ${megabytes(total)} MB`;
  }

  async define(asker) {
    const text = this.text;
    asker.failed = false;
    await this.engine.define(this.module, text, (message) => asker.heard(message));
    if (asker.failed) throw new Error(`${this.file} could not be taken over.`);
    this.sent = { text, generation: this.engine.generation };
  }

  tell(before) {
    const seconds = this.result ? `${this.result.seconds.toFixed(2)} s` : "";
    if (this.result?.stopped) this.note.textContent = "Stopped. What was left is dropped; a new worker stands ready.";
    else if (this.result?.spent) this.note.textContent = this.result.spent;
    else if (this.failed) this.note.textContent = `${before}Ended with an error, ${seconds}`;
    else if (!this.called) this.note.textContent = "The worker has it. Run a call to see what it does.";
    else this.note.textContent = `${before}Done, ${seconds}`;
  }

  async stop() {
    this.note.textContent = "Stopping …";
    await this.engine.stop().catch((error) => {
      this.note.textContent = error.message;
    });
  }

  reset() {
    this.jar.updateCode(this.original.replace(/\n$/, ""));
    this.figure.classList.remove("live-edited");
    this.out.replaceChildren();
    this.close();
    this.timeline.replaceChildren();
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

  show(state, broker, said) {
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

// Makes the blocks of the page editable, those that `offered` lets through; returns them.
export const furnish = (engine, offered = () => true) => {
  const figures = [...document.querySelectorAll("figure.block[data-file$='.py']")].filter((figure) => RUNNABLE.test(figure.dataset.file) && offered(figure));
  if (!figures.length) return [];
  const panel = new Panel();
  engine.told = (state, broker, said) => panel.show(state, broker, said);
  const all = [];
  for (const figure of figures) all.push(new Block(figure, engine, all));
  addEventListener("pagehide", () => engine.leave());
  // From the back-forward cache the page comes without its engine.
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  return all;
};
