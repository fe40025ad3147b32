// Run by `lab.pages.browser.pack` in Node: Pyodide on this machine's files, for one of the two steps of `packing.py`.
import fs from "node:fs";
import { install } from "./clock.js";

const [pyodide, step, mounts, given, out] = process.argv.slice(2);
const end = (error) => {
  console.error(String(error?.message ?? error));
  process.exit(1);
};
install(globalThis, end);
const { loadPyodide } = await import(`${pyodide}/pyodide.mjs`);
// The same bytes each time: sets have an order.
const python = await loadPyodide({ indexURL: `${pyodide}/`, env: { PYTHONHASHSEED: "0" }, stdout: () => {}, stderr: () => {} });
for (const [place, folder] of Object.entries(JSON.parse(mounts))) {
  python.FS.mkdirTree(place);
  python.FS.mount(python.FS.filesystems.NODEFS, { root: fs.realpathSync(folder) }, place);
}
const steps = python.runPython(fs.readFileSync(new URL("packing.py", import.meta.url), "utf8"));
const words = fs.readFileSync(given, "utf8");
try {
  if (step === "trace") fs.writeFileSync(out, await steps.get("trace").callPromising(words));
  else {
    steps.get("pack")(words);
    fs.writeFileSync(out, python.FS.readFile("/project.zip"));
  }
  process.exit(0);
} catch (error) {
  end(error);
}
