// Where nodes stand, and how edges run between them. Points are {x, y} in pixels.

const mix = (a, b, t) => ({ x: a.x + (b.x - a.x) * t, y: a.y + (b.y - a.y) * t });
const apart = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);

// Agents on the left half of an ellipse, the decision maker at its right end, so that straight edges between them seldom
// run through a third node. As shares of the width and the height.
function standing(nodes) {
  const agents = nodes.filter((node) => !node.decision);
  const spread = (Math.min(180, 62 * (agents.length - 1)) * Math.PI) / 180;
  const places = new Map(nodes.filter((node) => node.decision).map((node) => [node.id, { x: 1, y: 0.5 }]));
  agents.forEach((node, i) => {
    const even = agents.length > 1 ? i / (agents.length - 1) - 0.5 : 0;
    const tall = Math.sin(spread / 2) || 1;
    const angled = agents.length > 8 ? 0 : 0.5; // between even heights and even angles; many have no room but in even heights
    const across = (1 - angled) * tall * 2 * even + angled * Math.sin(spread * even);
    places.set(node.id, { x: 0.46 * (1 - Math.sqrt(1 - across ** 2)), y: 0.5 + (0.5 * across) / tall });
  });
  return places;
}

// a node is a rectangle with round ends
function inside(node, point, gap) {
  const straight = Math.max(node.width - node.height, 0) / 2;
  const dx = Math.max(Math.abs(point.x - node.x) - straight, 0);
  return Math.hypot(dx, point.y - node.y) <= node.height / 2 + gap;
}

// A cubic curve is its four points; `part` is the piece of it between two times.
function part(curve, from, to) {
  const blossom = (...times) => times.reduce((points, t) => points.slice(1).map((p, i) => mix(points[i], p, t)), curve)[0];
  return [blossom(from, from, from), blossom(from, from, to), blossom(from, to, to), blossom(to, to, to)];
}

const pointAt = (curve, t) => part(curve, t, t)[0];

// the time where what holds at `yes` ends, on the way to `no`
function boundary(holds, yes, no) {
  for (let i = 0; i < 18; i++) {
    const middle = (yes + no) / 2;
    if (holds(middle)) yes = middle;
    else no = middle;
  }
  return yes;
}

// From centre to centre. `lane` bends it to the left of its way, so that the way back is another curve.
function between(source, target, lane) {
  if (source === target) return loop(source, lane);
  const across = { x: (target.y - source.y) * lane * 1.33, y: (source.x - target.x) * lane * 1.33 };
  const bent = (t) => ({ x: mix(source, target, t).x + across.x, y: mix(source, target, t).y + across.y });
  return [source, bent(1 / 3), bent(2 / 3), target];
}

// The first lane on which a curve runs through no third node; the first of all where there is none.
function freeLane(source, target, lanes, nodes) {
  if (source === target) return lanes[0];
  const third = nodes.filter((node) => node !== source && node !== target);
  const free = (lane) => {
    const curve = between(source, target, lane);
    return Array.from({ length: 19 }, (_, i) => pointAt(curve, (i + 1) / 20)).every((p) => !third.some((n) => inside(n, p, 6)));
  };
  return lanes.find(free) ?? lanes[0];
}

function loop(node, lane) {
  const up = node.above ? -1 : 1;
  const height = node.height / 2 + 34 + 60 * lane;
  const near = node.y + (up * node.height) / 2;
  return [
    { x: node.x - 12, y: near }, { x: node.x - 40, y: node.y + up * height },
    { x: node.x + 40, y: node.y + up * height }, { x: node.x + 12, y: near },
  ];
}

// What is drawn of an edge: its line and arrow as path data, and the curve that is seen of it.
function drawn(source, target, lane, width) {
  const curve = between(source, target, lane);
  const start = boundary((t) => inside(source, pointAt(curve, t), 1), 0, 0.5);
  const end = boundary((t) => inside(target, pointAt(curve, t), 3), 1, 0.5);
  const tip = pointAt(curve, end);
  const length = 7 + 1.5 * width;
  const neck = boundary((t) => apart(pointAt(curve, t), tip) < length, end, start);
  const base = pointAt(curve, neck);
  const half = (3.5 + 0.85 * width) / (apart(base, tip) || 1);
  const side = { x: (tip.y - base.y) * half, y: (base.x - tip.x) * half };
  const show = (p) => `${p.x.toFixed(1)} ${p.y.toFixed(1)}`;
  const [a, b, c, d] = part(curve, start, neck + (end - neck) * 0.15);
  const left = { x: base.x + side.x, y: base.y + side.y };
  const right = { x: base.x - side.x, y: base.y - side.y };
  return {
    line: `M${show(a)} C${show(b)} ${show(c)} ${show(d)}`,
    arrow: `M${show(tip)} L${show(left)} L${show(right)} Z`,
    seen: part(curve, start, end),
  };
}
