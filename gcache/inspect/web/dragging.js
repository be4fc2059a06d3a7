// Calls `moved(what, x, y)` with every move of a pressed pointer; a press that moved is no click.
function dragging(svg, find, moved) {
  let held = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.button === 0) held = { what: find(event.target), x: event.clientX, y: event.clientY, on: false, id: event.pointerId };
  });
  svg.addEventListener("pointermove", (event) => {
    if (!held || event.pointerId !== held.id) return;
    const x = event.clientX - held.x, y = event.clientY - held.y;
    if (!held.on && Math.hypot(x, y) < 4) return;
    if (!held.on) svg.setPointerCapture(held.id);
    Object.assign(held, { on: true, x: event.clientX, y: event.clientY });
    moved(held.what, x, y);
  });
  const end = (event) => {
    if (!held || event.pointerId !== held.id) return;
    if (held.on) {
      const swallow = (click) => click.stopPropagation();
      svg.addEventListener("click", swallow, { capture: true, once: true });
      setTimeout(() => svg.removeEventListener("click", swallow, { capture: true }));
    }
    held = null;
  };
  svg.addEventListener("pointerup", end);
  svg.addEventListener("pointercancel", end);
}
