// Small line charts over training steps, with a marker that follows the slider.

const CHART = { width: 280, height: 120, left: 46, right: 6, top: 10, bottom: 18 };

// Returns the chart's element and `at(step)`, which moves its marker.
function makeChart({ name, points }) {
  const steps = points.map(([step]) => step), values = points.map(([, value]) => value);
  const [first, last] = [Math.min(...steps), Math.max(...steps)], [low, high] = [Math.min(...values), Math.max(...values)];
  const x = (step) => CHART.left + ((step - first) / (last - first || 1)) * (CHART.width - CHART.left - CHART.right);
  const y = (value) => CHART.height - CHART.bottom - (high > low ? (value - low) / (high - low) : 0.5) * (CHART.height - CHART.top - CHART.bottom);
  const marker = draw("line", { class: "marker", y1: CHART.top, y2: CHART.height - CHART.bottom });
  const dot = draw("circle", { class: "dot", r: 4 });
  const path = points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join(" ");
  const text = (content, attributes) => draw("text", attributes, content);
  const svg = draw("svg", { viewBox: `0 0 ${CHART.width} ${CHART.height}`, role: "img", "aria-label": `${name}: from ${short(values[0])} to ${short(values[values.length - 1])}, least ${short(low)}, most ${short(high)}` },
    ...[CHART.top, CHART.height - CHART.bottom].map((at) => draw("line", { class: "axis", x1: CHART.left, x2: CHART.width, y1: at, y2: at })),
    draw("path", { class: "curve", d: path }), marker, dot,
    text(short(high), { x: CHART.left - 6, y: CHART.top + 4, "text-anchor": "end" }),
    text(short(low), { x: CHART.left - 6, y: CHART.height - CHART.bottom + 4, "text-anchor": "end" }),
    text(`step ${first}`, { x: CHART.left, y: CHART.height - 3 }), text(String(last), { x: CHART.width, y: CHART.height - 3, "text-anchor": "end" }));
  const now = make("strong");
  const at = (step) => {
    const [near, value] = points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best));
    fill(marker, { x1: x(near), x2: x(near) });
    fill(dot, { cx: x(near), cy: y(value) });
    now.textContent = short(value);
  };
  return { element: make("figure", { class: "chart card", "data-curve": name }, make("figcaption", {}, name, now), svg), at };
}

// three digits that count
function short(value) {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  return fixed(value, within(2 - Math.floor(Math.log10(Math.abs(value))), 0, 4));
}
