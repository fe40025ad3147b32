// What the pages can do beyond being read: copy a block, and take old links to their new place. Both are comforts.
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

  oldAnchors();
  copyButtons();
})();
