// What the pages can do beyond being read: copy a block, choose the colours, follow the reader in the contents, take old
// links to their new place, fetch the search once it is wanted. All are comforts.
(() => {
  "use strict";

  const root = document.documentElement;

  const copyButtons = () => {
    const blocks = document.querySelectorAll("figure.block");
    if (!navigator.clipboard || !blocks.length) return;
    const said = document.createElement("p");
    said.className = "hidden";
    said.setAttribute("role", "status");
    document.querySelector("article").append(said);
    for (const figure of blocks) {
      // Looked up each time: on a live page it is an editor by then.
      const code = () => figure.querySelector("pre");
      const caption = figure.querySelector("figcaption");
      const button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = "Copy";
      button.setAttribute("aria-label", `Copy ${caption.querySelector("code").textContent}`);
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(code().textContent);
          button.textContent = "Copied";
        } catch {
          button.textContent = "Press Ctrl+C";
          getSelection().selectAllChildren(code());
        }
        said.textContent = button.textContent;
        setTimeout(() => { button.textContent = "Copy"; said.textContent = ""; }, 2000);
      });
      caption.append(button);
    }
  };

  const oldAnchors = () => {
    if (!document.querySelector("ul.old-anchors") || location.hash.length < 2) return;
    const mark = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const link = mark && mark.closest("ul.old-anchors li")?.querySelector("a");
    if (link) location.replace(link.href);
  };

  const colours = () => {
    const modes = ["auto", "light", "dark"];
    const button = document.querySelector(".mode");
    const show = () => {
      const label = `Colours: ${root.dataset.mode ?? "auto"}`;
      button.setAttribute("aria-label", label);
      button.title = label;
    };
    button.addEventListener("click", () => {
      const next = modes[(modes.indexOf(root.dataset.mode ?? "auto") + 1) % modes.length];
      if (next === "auto") delete root.dataset.mode;
      else root.dataset.mode = next;
      try { localStorage.setItem("mode", root.dataset.mode ?? ""); } catch { /* Chosen for this page alone. */ }
      show();
    });
    show();
    button.hidden = false;
  };

  // The section that is read is marked in the contents, and never out of view there.
  const follow = () => {
    const menu = document.getElementById("menu");
    const inView = (entry) => {
      const { top, bottom } = entry.getBoundingClientRect(), frame = menu.getBoundingClientRect();
      if (top < frame.top || bottom > frame.bottom) menu.scrollTop += top - frame.top - frame.height / 3;
    };
    const links = new Map([...menu.querySelectorAll('.toc a[href^="#"]')].map((link) => [decodeURIComponent(link.hash.slice(1)), link]));
    const headings = [...document.querySelectorAll("article section[id] > :is(h2, h3)")];
    let marked = null;
    const mark = () => {
      const past = headings.filter((heading) => heading.getBoundingClientRect().top < innerHeight / 3).at(-1);
      const link = past && links.get(past.parentElement.id);
      if (link === marked) return;
      marked?.removeAttribute("aria-current");
      marked = link;
      marked?.setAttribute("aria-current", "true");
      if (marked) inView(marked);
    };
    const page = menu.querySelector('[aria-current="page"]');
    if (page) inView(page);
    addEventListener("scroll", mark, { passive: true });
    mark();
  };

  const search = () => {
    const field = document.querySelector('header input[type="search"]');
    const load = () => {
      field.removeEventListener("focus", load);
      const script = document.createElement("script");
      script.src = `${root.dataset.root}_static/search.js`;
      document.head.append(script);
    };
    field.addEventListener("focus", load);
    addEventListener("keydown", (event) => {
      const typing = event.target.closest?.("input, textarea, [contenteditable]");
      if ((event.key === "k" && (event.ctrlKey || event.metaKey)) || (event.key === "/" && !typing)) {
        event.preventDefault();
        field.focus();
      }
    });
    if (document.getElementById("search")) load();
  };

  oldAnchors();
  copyButtons();
  colours();
  follow();
  search();
})();
