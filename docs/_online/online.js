// Run on a published page: a button on each call that was proven in a browser. Nothing else loads before it is pressed.
const { version, total, megabytes } = document.querySelector("script[data-version]").dataset;
const here = new URL(`online-${version}/`, import.meta.url);
const figures = [...document.querySelectorAll("figure[data-online]")];
const calls = figures.filter((figure) => figure.dataset.online === "call");
const bars = [];

const bar = (figure, ...parts) => {
  const made = document.createElement("p");
  made.className = "online-bar";
  made.append(...parts);
  figure.insertBefore(made, figure.querySelector("details.evidence"));
  bars.push(made);
};
const load = (tag, given) => new Promise((resolve, reject) => {
  const node = Object.assign(document.createElement(tag), given, { onload: resolve, onerror: reject });
  node.dataset.manual = "";
  document.head.append(node);
});

const open = async (figure, note) => {
  for (const made of bars) made.querySelector("button").disabled = true;
  note.textContent = "Loads the editor …";
  try {
    await load("link", { rel: "stylesheet", href: new URL("live.css", here) });
    for (const name of ["prism-core.js", "prism-python.js"]) await load("script", { src: new URL(name, here) });
    const [{ furnish }, { Browser }] = await Promise.all(["editor.js", "browser.js"].map((name) => import(new URL(name, here))));
    for (const made of bars) made.remove();
    // Tasks are edited beside the calls that run them.
    const blocks = furnish(new Browser({ version, total: Number(total) }, here), (one) => one.dataset.online);
    const block = blocks.find((one) => one.figure === figure);
    block.run();
    block.buttons.stop.focus();
  } catch {
    note.textContent = "The editor could not be loaded. Reload the page to try again.";
  }
};

const offer = (size) => {
  for (const figure of calls) {
    const button = document.createElement("button");
    const note = document.createElement("span");
    button.textContent = `Run in your browser${size}`;
    button.type = "button";
    button.setAttribute("aria-label", `${button.textContent}: ${figure.querySelector("figcaption code").textContent}`);
    button.addEventListener("click", () => open(figure, note));
    note.setAttribute("role", "status");
    bar(figure, button, note);
  }
};

if (typeof globalThis.WebAssembly?.Suspending !== "function") {
  bar(calls[0], "No Run on this page: your browser can't switch stacks in WebAssembly (JSPI).");
} else {
  // The largest of what an earlier visit has left.
  const kept = await globalThis.caches?.match(new URL("project.bin", here)).catch(() => null);
  offer(kept ? "" : ` (${megabytes} MB)`);
}
