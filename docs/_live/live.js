// The engine of live pages: a kernel of the live server that belongs to this page alone, over one WebSocket.
import { furnish } from "./editor.js";

// What the kernel sends beside Jupyter's own messages.
const KINDS = ["log", "wait", "run", "broker"].map((kind) => [`application/vnd.celery-faq.${kind}+json`, kind]);
const IDLE_MINUTES = 20;
const SAID = {
  none: "Not started.",
  starting: "A broker, Alliance Auth and a worker start …",
  ready: "Ready. What you send is yours alone.",
  gone: "The kernel has ended. Run starts a new one.",
  rested: `Nothing ran for ${IDLE_MINUTES} minutes, so all was ended. Run starts it anew.`,
};

const cookie = (name) => document.cookie.split("; ").find((pair) => pair.startsWith(`${name}=`))?.slice(name.length + 1);
const plain = (text) => text.replace(/\u001b\[[0-9;]*m/g, "");

// Jupyter's message as the editor wants to hear it.
const heard = ({ msg_type: type, content }) => {
  if (type === "stream") return { kind: content.name, data: plain(content.text) };
  if (type === "error") return { kind: "error", data: { ...content, traceback: plain(content.traceback.join("\n")) } };
  for (const [mime, kind] of KINDS) if (content.data && mime in content.data) return { kind, data: content.data[mime] };
  return content.data?.["text/plain"] ? { kind: "stdout", data: `${content.data["text/plain"]}\n` } : {};
};

class Kernel {
  constructor() {
    this.told = () => {};
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
  ready(tell = () => {}) {
    // A kernel without its broker is of no use: another one comes with its own.
    if (this.broker.broker === "gone") this.drop();
    if (this.state !== "ready") tell("Waiting for a broker, Alliance Auth and a worker …");
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
    this.told(state, this.broker, SAID[state] ?? "");
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
    const { kind, data } = message.content ? heard(message) : {};
    if (kind === "broker") {
      this.broker = data;
      this.told(this.state, this.broker, SAID[this.state] ?? "");
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
    else entry.heard({ kind, data });
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

  define(module, code, heard) {
    return this.execute(`%%tasks ${module}\n${code}`, heard);
  }

  stop() {
    return this.ask(`/${this.id}/interrupt`, "POST");
  }

  execute(code, heard) {
    return this.request("execute_request", { code, silent: false, store_history: false, user_expressions: {}, allow_stdin: false, stop_on_error: true }, heard);
  }

  leave() {
    this.state = "left";
    this.drop();
  }
}

const kernel = new Kernel();
// The panel tells of a failure.
if (furnish(kernel).length) kernel.ready().catch(() => {});
