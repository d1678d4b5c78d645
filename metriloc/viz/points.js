// Points in one photo or in several, under every stage of an alignment: stages are switched, points are chosen, with the
// pointer or the arrow keys, and what lies below them. "#point-3" at the end of the address chooses the third.
// No dependencies.
(() => {
  "use strict";
  const stages = (figure) => [...figure.querySelectorAll("svg.marks > [data-stage]")];

  function choose(figure, number) {
    const words = JSON.parse(figure.querySelector("script").textContent);
    figure.dataset.chosen = number;
    for (const one of figure.querySelectorAll("[data-point]")) {
      const chosen = Number(one.dataset.point) === number;
      if (one.tagName === "IMG") one.hidden = !chosen;
      else one.classList.toggle("chosen", chosen);
    }
    figure.querySelector(".told").textContent = words[number];
  }

  function nearest(figure, x, y) {
    let found = 0, least = Infinity;
    for (const stage of stages(figure).filter((g) => !g.classList.contains("off")))
      for (const mark of stage.querySelectorAll("path[data-point]")) {
        const box = mark.getBoundingClientRect();
        const apart = Math.hypot(box.x + box.width / 2 - x, box.y + box.height / 2 - y);
        if (apart < least) [found, least] = [Number(mark.dataset.point), apart];
      }
    return found;
  }

  for (const figure of document.querySelectorAll("figure.chooser")) {
    const count = JSON.parse(figure.querySelector("script").textContent).length;
    for (const svg of figure.querySelectorAll("svg.marks")) {
      svg.addEventListener("click", (event) => choose(figure, nearest(figure, event.clientX, event.clientY)));
      svg.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (step === undefined) return;
        event.preventDefault();
        choose(figure, (Number(figure.dataset.chosen ?? -step) + step + count) % count);
      });
    }
    const shown = figure.querySelector("select[data-layers]");
    const show = () => {
      for (const image of figure.querySelectorAll("img[data-layer]")) image.hidden = image.dataset.layer !== shown.value;
    };
    shown?.addEventListener("change", show);
    if (shown) show(); // a browser may have kept what was chosen before the page was loaded again
    for (const box of figure.querySelectorAll("input[data-stage]"))
      box.addEventListener("change", () => {
        for (const stage of stages(figure))
          if (stage.dataset.stage === box.dataset.stage) stage.classList.toggle("off", !box.checked);
      });
    const asked = /^#point-(\d+)$/.exec(location.hash);
    if (asked && asked[1] >= 1 && asked[1] <= count) choose(figure, Number(asked[1]) - 1);
  }
})();
