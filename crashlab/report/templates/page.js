"use strict";
// One stop of the Tab key for each drawing; arrows go from mark to mark, and what has the focus is told below.
for (const figure of document.querySelectorAll("figure")) {
  const detail = figure.querySelector(".detail");
  const text = (mark) => mark.querySelector("title")?.textContent ?? mark.getAttribute("aria-label") ?? "";
  const tell = (mark) => { if (detail) detail.textContent = text(mark); };
  for (const drawing of figure.querySelectorAll("svg.lanes, [data-roving]")) {
    const lanes = [...drawing.querySelectorAll(".lane")].map((lane) => [...lane.querySelectorAll("[data-mark]")]).filter((marks) => marks.length);
    const rows = lanes.map((marks) => marks.slice().sort((a, b) => left(a) - left(b)));
    const where = new Map();
    rows.forEach((marks, row) => marks.forEach((mark, column) => where.set(mark, [row, column])));
    if (!rows.length) continue;
    let current = rows[0][rows[0].length - 1];
    for (const mark of where.keys()) mark.setAttribute("tabindex", mark === current ? "0" : "-1");
    const go = (mark) => {
      if (!mark) return;
      current.setAttribute("tabindex", "-1");
      current = mark;
      current.setAttribute("tabindex", "0");
      current.focus();
    };
    const near = (row, mark) => rows[row]?.reduce((best, one) => Math.abs(left(one) - left(mark)) < Math.abs(left(best) - left(mark)) ? one : best);
    drawing.addEventListener("keydown", (event) => {
      const [row, column] = where.get(event.target) ?? [];
      if (row === undefined) return;
      const steps = {
        ArrowRight: () => rows[row][column + 1] ?? rows[row + 1]?.[0],
        ArrowLeft: () => rows[row][column - 1] ?? rows[row - 1]?.at(-1),
        ArrowDown: () => near(row + 1, event.target),
        ArrowUp: () => near(row - 1, event.target),
        Home: () => rows[0][0],
        End: () => rows.at(-1).at(-1),
      };
      if (!steps[event.key]) return;
      event.preventDefault();
      go(steps[event.key]());
    });
    for (const kind of ["focusin", "pointerover", "click"]) {
      drawing.addEventListener(kind, (event) => {
        const mark = event.target.closest("[data-mark]");
        if (mark) tell(mark);
        if (mark && kind === "click") go(mark);
      });
    }
  }
}
function left(mark) {
  const shape = mark.querySelector("rect");
  return shape ? parseFloat(shape.getAttribute("x")) : mark.offsetLeft + 1e4 * mark.offsetTop;
}
// A link into something that is folded up opens it.
function unfold() {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  for (let fold = target && target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", unfold);
if (location.hash) unfold();
