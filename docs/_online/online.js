// Run on a published page: a button on each call that was proven in a browser. Nothing else loads before it is pressed.
const data = document.querySelector("script[data-online]").dataset;
const pack = JSON.parse(data.online);
const here = new URL(`./online-${pack.version}/`, import.meta.url);
const able = typeof WebAssembly?.Suspending === "function" && typeof Worker === "function";

const figures = [...document.querySelectorAll("figure.block[data-online]")];
const calls = figures.filter((figure) => figure.dataset.online === "yes");

const style = (name) => {
  const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL(name, here) });
  document.head.append(link);
};
const script = (name) => new Promise((resolve, reject) => {
  const node = Object.assign(document.createElement("script"), { src: new URL(name, here), onload: resolve, onerror: reject });
  node.dataset.manual = "";
  document.head.append(node);
});

const open = async (figure, note) => {
  note.textContent = "Loads the editor …";
  try {
    style("live.css");
    await script("prism-core.js");
    await script("prism-python.js");
    const [{ furnish }, { Browser }] = await Promise.all([import(new URL("editor.js", here)), import(new URL("browser.js", here))]);
    for (const other of figures) other.querySelector(".online-bar")?.remove();
    // Tasks are edited beside the calls that run them.
    const blocks = furnish(new Browser(pack, here), (one) => one.dataset.online);
    await blocks.find((block) => block.figure === figure).run();
  } catch {
    note.textContent = "The editor could not be loaded: press Run to try again.";
  }
};

if (able) {
  for (const figure of calls) {
    const bar = document.createElement("p");
    bar.className = "online-bar";
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: `Run in your browser (${data.megabytes} MB)` });
    const note = document.createElement("span");
    note.setAttribute("role", "status");
    button.setAttribute("aria-label", `Run ${figure.querySelector("figcaption code").textContent} in your browser, loads ${data.megabytes} megabytes`);
    button.addEventListener("click", () => open(figure, note));
    const what = Object.assign(document.createElement("a"), { href: new URL("../shipped.html", import.meta.url), textContent: "what it loads" });
    bar.append(button, what, note);
    figure.insertBefore(bar, figure.querySelector("details.evidence"));
  }
} else if (calls.length) {
  const told = document.createElement("p");
  told.className = "online-bar";
  told.textContent = "The calls of this page can run in a browser that switches stacks in WebAssembly (JSPI); this one can't.";
  calls[0].insertBefore(told, calls[0].querySelector("details.evidence"));
}
