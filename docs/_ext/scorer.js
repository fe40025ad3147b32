// Sphinx's scores, but a page whose title has a word of the query comes before pages that have it in a heading.
var Scorer = (() => {
  const words = (new URLSearchParams(location.search).get("q") ?? "").toLowerCase().match(/\w{4,}/g) ?? [];
  // Without their endings: who looks for priority also wants priorities.
  const stems = words.map((word) => word.slice(0, Math.max(4, word.length - 2)));
  return {
    score: ([, title, , , score]) => score + (stems.some((stem) => title.toLowerCase().includes(stem)) ? 20 : 0),
    objNameMatch: 11,
    objPartialMatch: 6,
    objPrio: { 0: 15, 1: 5, 2: -5 },
    objPrioDefault: 0,
    title: 15,
    partialTitle: 7,
    term: 5,
    partialTerm: 2,
  };
})();
