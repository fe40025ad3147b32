// The search: sections with their titles, as they are typed for. Fetched when the field is first used.
(() => {
  "use strict";

  const here = new URL(".", document.currentScript.src);
  const field = document.querySelector('header input[type="search"]');
  const page = document.getElementById("search");
  const MOST = 30;

  // In this order, also where a page is opened as a file, which may load no modules.
  const fetched = ["minisearch/minisearch.js", "base-stemmer.js", "english-stemmer.js", "sections.js"].map((name) => new Promise((done, failed) => {
    const script = Object.assign(document.createElement("script"), { src: new URL(name, here), async: false, onload: done, onerror: failed });
    document.head.append(script);
  }));

  // Words that tell nothing about what is looked for.
  const EMPTY = new Set("a an and are as at be but by can do does for from has have how i if in into is it its me my of on or our so that the their them then there they this to was we what when where which who why will with you your".split(" "));

  const engine = () => {
    const { sections, synonyms } = window.searched;
    const stemmer = new EnglishStemmer();
    const stem = (word) => stemmer.stemWord(word.toLowerCase());
    // AlreadyQueued is also found by its parts.
    const words = (text) => text.split(/[^\p{L}\p{N}]+/u).filter(Boolean)
      .flatMap((word) => [word, ...(/[a-z][A-Z]/.test(word) ? word.split(/(?<=[a-z])(?=[A-Z])/) : [])]);
    const groups = new Map();
    for (const group of synonyms) {
      const stems = group.map(stem);
      for (const one of stems) groups.set(one, [...new Set([...(groups.get(one) ?? []), ...stems])]);
    }
    const index = new MiniSearch({
      idField: "address",
      fields: ["title", "page", "text", "claims", "code"],
      tokenize: words,
      processTerm: stem,
    });
    index.addAll(sections);
    const known = new Map(sections.map((section) => [section.address, section]));
    const boost = { title: 4, page: 1, text: 1, claims: 0.7, code: 0.4 };

    return (query) => {
      const typed = words(query);
      const told = typed.filter((word) => !EMPTY.has(word.toLowerCase()));
      const stems = [...new Set((told.length ? told : typed).map(stem))];
      const scores = new Map();
      for (const one of stems) {
        // The word itself counts in full; what stands for it, begins with it or is nearly it counts for less.
        const best = new Map();
        const note = (term, options, weight) => {
          for (const { id, score } of index.search(term, { tokenize: (text) => [text], processTerm: (text) => text, boost, ...options })) {
            best.set(id, Math.max(best.get(id) ?? 0, score * weight));
          }
        };
        note(one, {}, 1);
        for (const other of groups.get(one) ?? []) if (other !== one) note(other, {}, 0.5);
        if (one.length > 2) note(one, { prefix: true }, 0.6);
        if (!best.size && one.length > 3) note(one, { fuzzy: 0.25 }, 0.5);
        for (const [id, score] of best) {
          const { sum = 0, count = 0 } = scores.get(id) ?? {};
          scores.set(id, { sum: sum + score, count: count + 1 });
        }
      }
      return [...scores]
        .map(([id, { sum, count }]) => ({ section: known.get(id), score: sum * (0.3 + count / stems.length) }))
        .sort((one, other) => other.score - one.score)
        .slice(0, MOST)
        .map(({ section }) => ({ ...section, excerpt: excerpt(section, stems, words, stem) }));
    };
  };

  const excerpt = ({ text, claims, code }, stems, words, stem) => {
    const has = (part) => words(part).some((word) => stems.includes(stem(word)));
    const from = [text, claims, code].find(has) ?? text;
    const sentences = from.split(/(?<=[.:?!]) /);
    const at = Math.max(0, sentences.findIndex(has));
    const told = sentences.slice(at).join(" ");
    const cut = told.length > 180 ? `${told.slice(0, told.lastIndexOf(" ", 180))} …` : told;
    return (at ? "… " : "") + cut;
  };

  const make = (tag, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  };

  const list = make("ol");
  const status = make("p", { role: "status" });
  const panel = page ?? make("div", { role: "region", ariaLabel: "Search results", popover: "manual" });
  panel.classList.add("found");
  panel.append(status, list);
  if (!page) field.closest("search").append(panel);

  const show = (find) => {
    const query = field.value.trim();
    if (page) document.title = `${query || "Search"} – ${document.title.split(" – ").at(-1)}`;
    else if (query) panel.showPopover();
    else panel.hidePopover();
    const found = query ? find(query) : [];
    const root = document.documentElement.dataset.root;
    list.replaceChildren(...found.map((section) => make("li", {},
      make("a", { href: root + section.address, textContent: section.title }),
      make("p", { textContent: (section.page ? `${section.page} · ` : "") + section.excerpt }))));
    const plural = found.length === 1 ? "" : "s";
    status.textContent = query ? (found.length ? `${found.length} section${plural} found` : `Nothing was found for “${query}”.`) : "";
  };

  const keys = (event) => {
    const links = [...list.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    if (event.key === "Escape" && !page) {
      panel.hidePopover();
      if (at >= 0) field.focus();
    } else if (event.key === "ArrowDown" && links.length && at < links.length - 1) {
      links[at + 1].focus();
      event.preventDefault();
    } else if (event.key === "ArrowUp" && at >= 0) {
      (links[at - 1] ?? field).focus();
      event.preventDefault();
    }
  };

  const start = () => {
    const find = engine();
    if (page) field.value = new URLSearchParams(location.search).get("q") ?? field.value;
    field.addEventListener("input", () => show(find));
    for (const node of [field, list]) node.addEventListener("keydown", keys);
    addEventListener("click", ({ target }) => { if (!page && !target.closest("search")) panel.hidePopover(); });
    if (page || field.value) show(find);
  };

  Promise.all(fetched).then(start, () => {
    // The form still leads to the page that says what to do.
    status.textContent = "The search could not be loaded: the connection may be down.";
    if (!page) panel.showPopover();
  });
})();
