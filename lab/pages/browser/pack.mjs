// Run by `lab.pages.browser.pack` in Node: starts Pyodide on this machine's files and lets `packing.py` trace and pack them.
import fs from "node:fs";
import { install } from "./clock.js";

const [pyodide, mounts, calls, out] = process.argv.slice(2);
const end = (error) => {
  console.error(String(error?.message ?? error));
  process.exit(1);
};
install(globalThis, end);
const { loadPyodide } = await import(`${pyodide}/pyodide.mjs`);
// The same bytes each time: sets have an order.
const python = await loadPyodide({ indexURL: `${pyodide}/`, env: { PYTHONHASHSEED: "0" } });
for (const [place, folder] of Object.entries(JSON.parse(mounts))) {
  python.FS.mkdirTree(place);
  python.FS.mount(python.FS.filesystems.NODEFS, { root: fs.realpathSync(folder) }, place);
}
const main = python.runPython(fs.readFileSync(new URL("packing.py", import.meta.url), "utf8"));
try {
  const told = await main.callPromising(calls);
  fs.writeFileSync(`${out}/project.zip`, python.FS.readFile("/project.zip"));
  fs.writeFileSync(`${out}/shipped.json`, told);
  process.exit(0);
} catch (error) {
  end(error);
}
