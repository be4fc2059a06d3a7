// Small things that both pages stand on. All text goes in as text: nothing here reads markup.

function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children = []) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined).map((c) => (c instanceof Node ? c : String(c))));
  return element;
}

const byId = (id) => document.getElementById(id);
const known = (value) => value !== null && value !== undefined;
const fixed = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
const signed = (value, digits = 3) => (value > 0 ? "+" : "") + fixed(value, digits);
const whole = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");
const within = (value, low, high) => Math.min(Math.max(value, low), high);

function inBytes(count) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) [count, unit] = [count / 1024, unit + 1];
  return `${unit ? count.toFixed(count < 10 ? 1 : 0) : count} ${units[unit]}`;
}

// (name, value) pairs as a list of terms; what is not known is left out
function terms(rows) {
  return make("dl", {}, ...rows.filter((row) => known(row[1])).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

// one line per latent step: the tokens that it is nearest to
function readingList(reading) {
  return make("ol", { class: "reading" }, ...reading.map((tokens) => make("li", {}, ...tokens.map((token) => make("span", {}, visible(token))))));
}

// a token that is blank, or breaks a line, can be seen as well
function visible(token) {
  return token.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ +$/, (blanks) => "␣".repeat(blanks.length)) || "∅";
}

// follows the system until the button is pressed
function followTheme(button) {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const show = () => {
    const theme = chosen || (dark.matches ? "dark" : "light");
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", theme === "dark" ? "switch to light colours" : "switch to dark colours");
  };
  button.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    show();
  });
  dark.addEventListener("change", show);
  show();
}
