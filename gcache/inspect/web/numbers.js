// Where the numbers of edges find room.

const CROWD = 60; // edges, past which numbers no longer keep clear of other edges: there is no place that does

const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

// Boxes of nothing along a curve: what a number should rather not stand on.
function trail(curve) {
  const count = Math.ceil(apart(curve[0], curve[3]) / 12) + 2;
  return Array.from({ length: count }, (_, i) => {
    const { x, y } = pointAt(curve, i / (count - 1));
    return { left: x - 1, right: x + 1, top: y - 1, bottom: y + 1 };
  });
}

// The first place along a curve where a number covers no other number and no node (`taken`), and if it can be no
// other edge (`others`); null where there is none.
function room(curve, width, taken, others) {
  if (apart(curve[0], curve[3]) < width + 16 && apart(curve[0], curve[3]) > 30) return null; // it would hide the edge
  const boxes = [0.4, 0.5, 0.32, 0.6, 0.25, 0.7, 0.18, 0.8].map((t) => {
    const { x, y } = pointAt(curve, t);
    return { x, y, left: x - width / 2, right: x + width / 2, top: y - 8, bottom: y + 8 };
  }).filter((box) => !taken.some((other) => overlap(box, other)));
  const place = boxes.find((box) => !others.some((other) => overlap(box, other))) || boxes[0] || null;
  if (place) taken.push(place);
  return place;
}

// Puts every edge's number where there is room for it, those of the strongest edges first.
function placeNumbers(edges, nodes) {
  const taken = nodes.map(({ x, y, width, height }) => ({ left: x - width / 2, right: x + width / 2, top: y - height / 2, bottom: y + height / 2 }));
  const seen = edges.filter((edge) => edge.data.shown).sort((a, b) => b.data.value - a.data.value);
  const trails = new Map(seen.length > CROWD ? [] : seen.map((edge) => [edge, trail(edge.seen)]));
  for (const edge of edges) edge.number.setAttribute("hidden", "");
  for (const edge of seen.filter(({ data }) => data.number)) {
    const { data, number } = edge, wide = 8 + 7 * data.number.length;
    const others = [...trails].flatMap(([other, boxes]) => (other === edge ? [] : boxes));
    const place = room(edge.seen, wide, taken, others);
    if (!place) continue;
    number.removeAttribute("hidden");
    number.setAttribute("transform", `translate(${place.x.toFixed(1)} ${place.y.toFixed(1)})`);
    fill(number.firstChild, { x: -wide / 2, width: wide });
    number.lastChild.textContent = data.number;
  }
}
