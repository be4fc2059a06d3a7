// One tooltip for a figure: shown while an element is hovered or has the focus, gone on Escape.

function makeTip(figure) {
  const element = make("div", { id: "tooltip", role: "tooltip", hidden: true });
  let current = null;

  function refresh() {
    if (!current) return;
    if (current.target.hasAttribute("hidden")) return void hide();
    const about = current.about();
    element.replaceChildren(make("strong", {}, about.title), terms(about.rows));
  }

  function show(target, about, point) {
    current = { target, about };
    refresh();
    element.hidden = false;
    target.setAttribute("aria-describedby", "tooltip");
    const room = { x: figure.clientWidth - element.offsetWidth - 6, y: figure.clientHeight - element.offsetHeight - 6 };
    const above = point.y + 14 > room.y ? point.y - element.offsetHeight - 12 : point.y + 14;
    element.style.left = `${within(point.x + 14, 6, Math.max(room.x, 6))}px`;
    element.style.top = `${within(above, 6, Math.max(room.y, 6))}px`;
  }

  function hide() {
    if (current) current.target.removeAttribute("aria-describedby");
    current = null;
    element.hidden = true;
  }

  // about: what to say, asked anew whenever it may have changed; where: the point beside it, for the keyboard
  function on(target, about, where) {
    target.addEventListener("pointermove", (event) => {
      const box = figure.getBoundingClientRect();
      if (event.buttons) hide();
      else show(target, about, { x: event.clientX - box.left, y: event.clientY - box.top });
    });
    target.addEventListener("pointerleave", hide);
    target.addEventListener("focus", () => target.matches(":focus-visible") && show(target, about, where()));
    target.addEventListener("click", (event) => event.pointerType === "touch" && show(target, about, where()));
    target.addEventListener("blur", hide);
  }

  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  return { element, on, hide, refresh };
}
