// Reads a chart out: the row of its table that is nearest to the pointer, or chosen with the arrow keys.
for (const svg of document.querySelectorAll("svg.plot[data-x]")) {
  const places = svg.dataset.x.split(" ").map(Number);
  const figure = svg.closest("figure");
  const rows = figure.querySelectorAll("tbody tr");
  const heads = [...figure.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
  const readout = figure.querySelector(".readout");
  const cursor = svg.querySelector(".cursor");
  let at = -1;
  const show = (index) => {
    at = Math.max(0, Math.min(places.length - 1, index));
    cursor.setAttribute("transform", `translate(${places[at] / 1000 * svg.getBoundingClientRect().width} 0)`);
    cursor.setAttribute("visibility", "visible");
    const cells = [...rows[at].children].map((cell) => cell.textContent.trim());
    readout.textContent = heads.map((head, i) => `${head}: ${cells[i]}`).join("  ·  ");
  };
  const hide = () => { cursor.setAttribute("visibility", "hidden"); readout.textContent = ""; };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) * 1000 / box.width;
    let best = 0;
    places.forEach((place, i) => { if (Math.abs(place - x) < Math.abs(places[best] - x)) best = i; });
    show(best);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -places.length, End: places.length }[event.key];
    if (step) { event.preventDefault(); show(at + step); }
  });
}
