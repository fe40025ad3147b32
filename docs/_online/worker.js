// The Web Worker: loads Pyodide and the project, then runs what the page asks for. One message in, many out.
import create from "./pyodide.asm.js";
import { install, possible } from "./clock.js";
import { loadPyodide } from "./pyodide.js";

const PREFIX = "celery-faq-online-";
// How they are packed, and as what they are given to who fetches them.
const FILES = ["pyodide.asm.bin", "stdlib.bin", "project.bin"];
// Hands the engine what the page asks next.
let ask = () => {};
let asked = 0;

const tell = (kind, data) => postMessage({ kind, data, asked });
const failed = (error) => tell("failed", String(error?.message ?? error));

// A file's bytes, from the cache where an earlier visit left it there; each step is told.
const load = async (name, version, step) => {
  const cache = await self.caches?.open(PREFIX + version).catch(() => null);
  const kept = await cache?.match(name);
  if (kept) {
    const bytes = await kept.arrayBuffer();
    step(bytes.byteLength);
    return bytes;
  }
  const answer = await fetch(name).catch(() => { throw new Error("lost"); });
  if (!answer.ok) throw new Error(`lost: ${name} ${answer.status}`);
  const parts = [];
  const reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read().catch(() => { throw new Error("lost"); });
    if (done) break;
    parts.push(value);
    step(value.byteLength);
  }
  const bytes = await new Blob(parts).arrayBuffer();
  // A full cache keeps nothing, and hinders nothing.
  await cache?.put(name, new Response(bytes)).catch(() => tell("full"));
  return bytes;
};

const start = async ({ version, total, real }) => {
  if (!possible()) throw new Error("no JSPI");
  for (const name of (await self.caches?.keys().catch(() => [])) ?? []) {
    if (name.startsWith(PREFIX) && name !== PREFIX + version) await caches.delete(name);
  }
  let loaded = 0;
  const step = (bytes) => tell("loaded", { loaded: (loaded += bytes), total });
  const [wasm, stdlib, project] = await Promise.all(FILES.map((name) => load(name, version, step)));
  const lock = await (await fetch("lock.json")).text();
  tell("starting");
  install(self, failed);
  const here = new URL("./", self.location).href;
  // Pyodide fetches two files that are here by now; whatever a host says of their type, they are given one.
  const network = self.fetch;
  self.fetch = (what, options) => {
    const name = String(what?.url ?? what).slice(here.length);
    if (name === "pyodide.asm.wasm") {
      const stream = new Blob([wasm]).stream().pipeThrough(new DecompressionStream("gzip"));
      return Promise.resolve(new Response(stream, { headers: { "Content-Type": "application/wasm" } }));
    }
    if (name === "stdlib.bin") return Promise.resolve(new Response(stdlib));
    return Promise.reject(new TypeError(`there is no network in this page: ${name}`));
  };
  const python = await loadPyodide({ indexURL: here, createPyodideModule: create, lockFileContents: lock, stdLibURL: `${here}stdlib.bin` });
  self.fetch = network;
  python.unpackArchive(project, "zip", { extractDir: "/" });
  const platform = { python: python.runPython("import platform; platform.python_version()"), heap: python._module.HEAP8.length };
  self.page = {
    tell: (kind, data) => tell(kind, kind === "ready" ? platform : JSON.parse(data)),
    next: () => new Promise((resolve) => { ask = resolve; }),
  };
  const serve = python.runPython(`
import sys
sys.path[:0] = ["/faq", "/faq/site-packages"]
from lab.pages.browser.begin import serve
serve`);
  serve.callPromising().catch(failed);
};

onmessage = async ({ data }) => {
  asked = data.asked;
  if (data.kind === "start") await start(data).catch(failed);
  else ask(JSON.stringify(data));
};
