"use strict";
// The slider: which files have something in flight after so many operations. Texts are set as text, never as markup.
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const id = (name) => document.getElementById(name);
  const slider = id("at"), last = data.first + data.steps.length, KEY = 500, SHOWN = 60;
  const keys = [new Map(data.begin)];
  const apply = (flight, step) => { for (const [file, units] of step[2]) units < 0 ? flight.delete(file) : flight.set(file, units); };
  data.steps.forEach((step, number) => {
    if (number % KEY === 0 && number) keys.push(new Map(keys.current));
    if (!number) keys.current = new Map(data.begin);
    apply(keys.current, step);
  });
  function flightAt(position) {
    const done = position - data.first, key = Math.min(keys.length - 1, Math.floor(done / KEY));
    const flight = new Map(keys[key]);
    for (let number = key * KEY; number < done; number += 1) apply(flight, data.steps[number]);
    return flight;
  }
  const cell = (row, text, kind) => { const made = row.insertCell(); made.textContent = text; if (kind) made.className = kind; return made; };
  const plain = (name) => name.replaceAll("_", " ");
  function show() {
    const position = Number(slider.value), flight = flightAt(position), step = data.steps[position - data.first - 1];
    id("number").textContent = position;
    const x = `${(100 * (position - data.first)) / Math.max(1, last - data.first)}%`;
    id("now").setAttribute("x1", x); id("now").setAttribute("x2", x);
    const all = [...flight].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    const units = all.reduce((sum, one) => sum + one[1], 0);
    const what = step ? `Operation ${position - 1}: ${step[0]}.` : "Nothing of this has happened.";
    const names = step ? `${step[3]} changes of names, ` : "";
    id("says").textContent = `${what} In flight: ${units} units (${Math.round((units * data.unit) / 1024)} kB) in ${all.length} files, ${names}${step ? step[4] : 0} commits acknowledged so far.`;
    slider.setAttribute("aria-valuetext", `${position}: ${what}`);
    const classes = new Map();
    for (const [file, count] of all) classes.set(data.files[file][1], (classes.get(data.files[file][1]) ?? 0) + count);
    id("classes").replaceChildren(...[...classes].sort((a, b) => b[1] - a[1]).map(([name, count]) => {
      const made = document.createElement("span");
      made.textContent = `${plain(name)}: ${count}`;
      return made;
    }));
    const body = id("flight"), most = Math.max(1, ...all.map((one) => one[1]));
    body.replaceChildren();
    for (const [file, count] of all.slice(0, SHOWN)) {
      const row = body.insertRow(), changed = step && step[2].some((one) => one[0] === file);
      cell(row, plain(data.files[file][1]));
      cell(row, `${changed ? "● " : ""}${data.files[file][0]}`, changed ? "text changed" : "text");
      cell(row, count, "number");
      cell(row, Math.round((count * data.unit) / 1024), "number");
      const bar = document.createElement("span");
      bar.className = "level"; bar.style.width = `${(100 * count) / most}%`;
      const place = cell(row, ""); place.setAttribute("aria-hidden", "true"); place.append(bar);
    }
    id("more").textContent = all.length > SHOWN ? `and ${all.length - SHOWN} more files` : "● changed by this operation";
  }
  function go(position) { slider.value = position; show(); }
  const ends = new Map([["flush ended", data.steps.flatMap((step, number) => step[1] === "flush ended" ? [data.first + number + 1] : [])],
    ["checkpoint", data.checkpoints.flat()]]);
  document.querySelector(".buttons").addEventListener("click", (event) => {
    const { go: by, find, way } = event.target.dataset, now = Number(slider.value);
    if (by) go(now + Number(by));
    if (find) go((way === "1" ? ends.get(find).find((at) => at > now) : ends.get(find).findLast((at) => at < now)) ?? now);
  });
  slider.addEventListener("input", show);
  id("stepping").hidden = false;
  show();
}
