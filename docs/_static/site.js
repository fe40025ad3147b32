// What the pages can do beyond being read: copy a block, take old links to their new place, show what a search found.
// All are comforts.
(() => {
  "use strict";

  const copyButtons = () => {
    const blocks = document.querySelectorAll("figure.block");
    if (!navigator.clipboard || !blocks.length) return;
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
    const said = document.createElement("p");
    said.className = "visually-hidden";
    said.setAttribute("role", "status");
    document.querySelector("article").append(said);
  };

  const oldAnchors = () => {
    if (!document.querySelector("ul.old-anchors") || location.hash.length < 2) return;
    const mark = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const link = mark && mark.closest("ul.old-anchors li")?.querySelector("a");
    if (link) location.replace(link.href);
  };

  // Sphinx's own excerpts begin with the menus, have the numbers and names of proofs in them, and cut words.
  const excerpts = () => {
    if (typeof Search === "undefined") return;
    const query = new URLSearchParams(location.search).get("q") ?? "";
    Search.makeSearchSummary = (html, keywords, anchor) => {
      const page = new DOMParser().parseFromString(html, "text/html");
      for (const node of page.querySelectorAll("h1, .headerlink, figcaption, .proofs, .evidence, details, sup.claim")) node.remove();
      for (const node of page.querySelectorAll("h2, h3, p, li, dt, dd, th, td, pre")) node.append(" ");
      const found = (anchor && page.querySelector(`article ${anchor}`)) || page.querySelector("article");
      const text = found?.textContent.replace(/\s+/g, " ").trim();
      if (!text) return null;
      const places = [query, ...keywords].map((word) => text.toLowerCase().indexOf(word.toLowerCase()));
      const start = text.lastIndexOf(" ", (places.find((place) => place >= 0) ?? 0) - 80) + 1;
      const end = text.indexOf(" ", start + 220);
      const summary = document.createElement("p");
      summary.className = "search-summary";
      summary.textContent = (start ? "… " : "") + (end < 0 ? text.slice(start) : `${text.slice(start, end)} …`);
      return summary;
    };
  };

  oldAnchors();
  copyButtons();
  addEventListener("DOMContentLoaded", excerpts);
})();
